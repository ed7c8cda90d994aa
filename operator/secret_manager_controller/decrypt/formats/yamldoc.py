"""YAML, as go.yaml.in/yaml/v3 reads it, which sops uses.

libyaml parses; what a scalar means is decided here, by go-yaml's rules (resolve.go): `yes` is a
string, `0777` and `0o777` are octal, `2024-01-31` is a time. RefusedError: anchors and aliases, merge keys,
duplicate keys, keys that are not strings, tags other than YAML's own, directives.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from collections.abc import Iterator

import yaml

from secret_manager_controller.decrypt.document import MAX_NODES
from secret_manager_controller.decrypt.formats.tree import Budget, Mapping, add, decoded, detach
from secret_manager_controller.decrypt.metadata import METADATA_KEY
from secret_manager_controller.decrypt.refusal import RefusedError, invalid
from secret_manager_controller.decrypt.scalars import (
    INT64_MAX,
    INT64_MIN,
    Node,
    Scalar,
    Timestamp,
    general_float,
    printed,
)
from secret_manager_controller.errors import foreign

# libyaml is ten times as fast; the wheels on PyPI have it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG_PREFIX = "tag:yaml.org,2002:"
_NOT_SPECIFIC = "!"


class YamlDocuments:
    """Reads YAML streams.

    Args:
        max_nodes: the most keys, items and documents in one.
    """

    def __init__(self, *, max_nodes: int = MAX_NODES) -> None:
        self._max_nodes = max_nodes

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the documents of a stream; an empty one is an empty mapping."""
        text, problem = decoded(data), ""
        try:
            return list(_Builder(yaml.parse(text, Loader=_LOADER), self._max_nodes).documents())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        except yaml.YAMLError:
            pass  # A character that YAML does not allow; libyaml tells no line.
        raise invalid(f"{problem}it is not YAML")

    def detach_metadata(self, documents: list[Mapping]) -> Node:
        """Remove the key `sops` of every document and return the first document's."""
        blocks = [detach(document, METADATA_KEY) for document in documents] or [None]
        if blocks[0] is None and any(block is not None for block in blocks):
            raise invalid("it has SOPS metadata, but not in its first document")
        return blocks[0]

    def printed(self, value: Scalar) -> bytes:
        """Return a value's bytes; floats as go-yaml writes them."""
        if isinstance(value, float):
            text = general_float(value)
            return {"+Inf": ".inf", "-Inf": "-.inf", "NaN": ".nan"}.get(text, text).encode()
        return printed(value)


class _Builder:
    """Makes trees of a stream's events."""

    def __init__(self, events: Iterator[yaml.Event], max_nodes: int) -> None:
        self._events = events
        self._budget = Budget(max_nodes)

    def documents(self) -> Iterator[Mapping]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if event.version or event.tags:
                    raise _refused(event, "a directive (%YAML, %TAG), which is not supported")
                root = self._node(next(self._events), 0)
                if root is None:
                    root = Mapping()
                if not isinstance(root, dict):
                    raise _refused(event, "a document that is not a mapping")
                yield root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._budget.spend(depth)
        _check_anchor(event)
        if isinstance(event, yaml.MappingStartEvent):
            _check_tag(event, "map")
            return self._mapping(depth)
        if isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            return self._sequence(depth)
        assert isinstance(event, yaml.ScalarEvent)
        return _scalar(event)

    def _mapping(self, depth: int) -> Mapping:
        mapping = Mapping()
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = _key(event)
            value = self._node(next(self._events), depth + 1)
            add(mapping, key, value, where=_where(event))
        return mapping

    def _sequence(self, depth: int) -> list[Node]:
        items: list[Node] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, depth + 1))
        return items


def _where(event: yaml.Event) -> str:
    mark = event.start_mark
    return f"line {mark.line + 1}: " if mark else ""


def _refused(event: yaml.Event, what: str) -> RefusedError:
    return invalid(f"{_where(event)}it has {what}")


def _check_anchor(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _refused(event, "an anchor or alias (&, *), which is not supported")


def _key(event: yaml.Event) -> str:
    _check_anchor(event)
    key = _scalar(event) if isinstance(event, yaml.ScalarEvent) else None
    if not isinstance(event, yaml.ScalarEvent) or not isinstance(key, str):
        raise _refused(event, "a key that is not a string; quote it")
    if key == "<<" and event.implicit[0]:
        raise _refused(event, "a merge key (<<), which is not supported")
    return key


def _check_tag(event: yaml.CollectionStartEvent, kind: str) -> None:
    if event.tag not in (None, _NOT_SPECIFIC, _TAG_PREFIX + kind):
        raise _refused(event, f"the tag {foreign(event.tag)}, which is not supported")


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    plain, _ = event.implicit
    if event.tag in (None, _NOT_SPECIFIC):
        # `! text` and everything in quotes or blocks is a string.
        return _resolved(event) if plain and event.tag is None else str(event.value)
    kind = event.tag.removeprefix(_TAG_PREFIX)
    if kind == "str":
        return str(event.value)
    if kind not in _TYPES:
        raise _refused(event, f"the tag {foreign(event.tag)}, which is not supported")
    value = _binary(event) if kind == "binary" else _resolved(event)
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES[kind]:
        raise _refused(event, f"a value that is not what its tag {foreign(event.tag)} says")
    return value


_TYPES: dict[str, type] = {
    "binary": bytes,
    "bool": bool,
    "float": float,
    "int": int,
    "null": type(None),
    "timestamp": Timestamp,
}


def _binary(event: yaml.ScalarEvent) -> bytes | None:
    try:
        return base64.b64decode(event.value.translate({10: None, 13: None}), validate=True)
    except (binascii.Error, ValueError):
        return None


_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_NUMBER_STARTS = frozenset("+-.0123456789")

# Go's ParseInt with base 0; underscores are gone before.
_INTEGERS = (
    (re.compile(r"([+-]?)0[xX]([0-9a-fA-F]+)"), 16),
    (re.compile(r"([+-]?)0[bB]([01]+)"), 2),
    (re.compile(r"([+-]?)0[oO]?([0-7]+)"), 8),
    (re.compile(r"([+-]?)(0|[1-9][0-9]*)"), 10),
    # go-yaml strips `0b` and `0o` itself when ParseInt refuses, so that a sign may follow.
    (re.compile(r"0b([+-])([01]+)"), 2),
    (re.compile(r"0o([+-])([0-7]+)"), 8),
)
_LONGEST_INTEGER = 66  # Sign and 65 binary digits; leading zeros beyond that make it a float.
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _resolved(event: yaml.ScalarEvent) -> Scalar:
    """Return what a plain scalar means."""
    text: str = event.value
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if text[0] != ".":
        moment = _timestamp(text)
        if moment is not None:
            return moment
        text = text.replace("_", "")
        number = _integer(text)
        if number is not None:
            if not INT64_MIN <= number <= INT64_MAX:
                raise _refused(event, "an integer of more than 64 bits; quote it")
            return number
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value - value == 0:
            return value
    return str(event.value)


def _integer(text: str) -> int | None:
    """Return an integer; None if it is none, or one that go-yaml takes for a float."""
    for pattern, base in _INTEGERS:
        match = pattern.fullmatch(text)
        if match:
            sign, digits = match.groups()
            digits = digits.lstrip("0") or "0"
            if len(digits) > _LONGEST_INTEGER:
                return None
            number = int(sign + digits, base)
            unsigned = 0 <= number < 1 << 64 and not sign
            return number if unsigned or INT64_MIN <= number <= INT64_MAX else None
    return None


_MOMENT = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:([Tt ])(\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,](\d+))?(Z|([+-])(\d\d):(\d\d))?)?",
    re.ASCII,
)


def _timestamp(text: str) -> Timestamp | None:
    """Return a time in one of the four layouts that go-yaml allows."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    separator, decimals, zone = match.group(4), match.group(8) or "", match.group(9)
    if separator is not None and (separator == " ") == (zone is not None):
        return None  # A space goes without a zone, a T with one.
    year, month, day, hour, minute, second = (int(match.group(g) or 0) for g in (1, 2, 3, 5, 6, 7))
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    # Python's calendar begins with year 1; year 0 is a leap year as 2000 is.
    if not 1 <= day <= calendar.monthrange(year or 2000, month)[1]:
        return None
    offset = _offset(match.group(10), match.group(11), match.group(12))
    if offset is None:
        return None
    fraction = decimals[:9].rstrip("0")
    fraction = f".{fraction}" if fraction else ""
    return Timestamp(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}")


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> str | None:
    if sign is None or hours is None or minutes is None:
        return "Z"
    total = 60 * int(hours) + int(minutes)
    if int(hours) > 24 or int(minutes) > 60:
        return None
    return f"{sign}{total // 60:02}:{total % 60:02}" if total else "Z"
