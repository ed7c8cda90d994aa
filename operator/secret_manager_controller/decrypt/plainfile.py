"""Write a decrypted file anew, for programs that read files: what `sops --decrypt` would write, but for its layout.

Keys, values and their types are those of the encrypted file, in its order. Comments are left out, and every YAML string
is in double quotes. What a format cannot hold is refused: YAML and INI are read back and compared before they are
returned.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from secret_manager_controller.decrypt.document import Format
from secret_manager_controller.decrypt.formats.dotenv import flat_printed
from secret_manager_controller.decrypt.formats.ini import DEFAULT_SECTION, Ini
from secret_manager_controller.decrypt.formats.jsondoc import DATA_KEY, JsonDocument
from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.refusal import RefusedError, invalid, shown
from secret_manager_controller.decrypt.scalars import Node, Scalar, Timestamp, authenticated, general_float
from secret_manager_controller.decrypt.sops import OpenLeaf

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TAG = "tag:yaml.org,2002:"
_INDENT = 4  # As sops indents.
_NO_FOLDING = 1 << 30

Documents = Sequence[dict[str, Node]]


def write_plain(documents: Documents, leaves: Iterable[OpenLeaf], format: Format) -> bytes:  # noqa: A002 - the term.
    """Return a file's text with its values decrypted.

    Args:
        documents: as they were parsed, without metadata.
        leaves: what `open_leaves` made of them.
        format: what to write.

    Raises:
        RefusedError: the format cannot hold a value that the file has.
    """
    remaining = _Leaves(leaves)
    opened = [remaining.rebuilt(document, number, ()) for number, document in enumerate(documents)]
    return _WRITERS[format](opened)


class _Leaves:
    """Leaves in the file's order, put back into the place that they came from."""

    def __init__(self, leaves: Iterable[OpenLeaf]) -> None:
        self._leaves = iter(leaves)
        self._next: OpenLeaf | None = next(self._leaves, None)

    def rebuilt(self, node: Node, document: int, path: tuple[str | int, ...]) -> Any:
        if isinstance(node, dict):
            return {key: self.rebuilt(child, document, (*path, key)) for key, child in node.items()}
        if isinstance(node, list):
            items: list[Any] = []
            for child in node:
                place = (*path, len(items))
                # An encrypted comment is an item without a leaf; the paths of leaves do not count it.
                if isinstance(child, dict | list) or self._is_next(document, place):
                    items.append(self.rebuilt(child, document, place))
            return items
        assert self._is_next(document, path)
        assert self._next is not None
        value, self._next = self._next.value, next(self._leaves, None)
        return value

    def _is_next(self, document: int, path: tuple[str | int, ...]) -> bool:
        return self._next is not None and (self._next.document, self._next.path) == (document, path)


def _yaml(documents: Documents) -> bytes:
    nodes = [_yaml_node(document) for document in documents]
    text = yaml.serialize_all(
        nodes,
        Dumper=_DUMPER,
        allow_unicode=True,
        explicit_start=len(nodes) > 1,
        indent=_INDENT,
        width=_NO_FOLDING,
    )
    data = str(text).encode()
    if not _same(_read_back(YamlDocuments(), data), list(documents)):
        raise invalid("it has a value that YAML cannot hold")
    return data


def _yaml_node(value: Any) -> yaml.Node:
    if isinstance(value, dict):
        pairs = [(_yaml_node(key), _yaml_node(child)) for key, child in value.items()]
        return yaml.MappingNode(f"{_TAG}map", pairs, flow_style=not pairs)
    if isinstance(value, list):
        return yaml.SequenceNode(f"{_TAG}seq", [_yaml_node(item) for item in value], flow_style=not value)
    kind, text, style = _yaml_scalar(value)
    return yaml.ScalarNode(f"{_TAG}{kind}", text, style=style)


def _yaml_scalar(value: Scalar) -> tuple[str, str, str | None]:
    match value:
        case None:
            return "null", "null", None
        case bool():
            return "bool", "true" if value else "false", None
        case int():
            return "int", str(value), None
        case float():
            special = {"+Inf": ".inf", "-Inf": "-.inf", "NaN": ".nan"}
            text = general_float(value)
            return "float", special.get(text, text), None
        case Timestamp():
            return "timestamp", value.text, None
        case bytes():
            return "binary", base64.b64encode(value).decode(), '"'
        case _:
            return "str", value, '"'


def _read_back(reader: YamlDocuments | Ini, data: bytes) -> list[dict[str, Node]] | None:
    try:
        return reader.parse(data)
    except RefusedError:
        return None


def _same(left: Any, right: Any) -> bool:
    """Compare trees with their types; NaN equals itself, and a whole float may be read back as an integer."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)


def _json(documents: Documents) -> bytes:
    (document,) = documents
    return f"{_json_text(document, 0)}\n".encode()


def _json_text(value: Any, depth: int) -> str:
    """Write by hand what the standard library would write with another float: Go's is wanted."""
    if isinstance(value, dict | list) and value:
        if isinstance(value, dict):
            items = [f"{_json_text(key, 0)}: {_json_text(child, depth + 1)}" for key, child in value.items()]
        else:
            items = [_json_text(item, depth + 1) for item in value]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        separator = "\n" + "\t" * (depth + 1)
        return opening + separator + f",{separator}".join(items) + "\n" + "\t" * depth + closing
    if isinstance(value, Timestamp):
        return json.dumps(value.text)
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise invalid("it has a value that JSON cannot hold")
    if isinstance(value, float):
        return JsonDocument().printed(value).decode()
    return json.dumps(value, ensure_ascii=False)


def _dotenv(documents: Documents) -> bytes:
    (document,) = documents
    lines = []
    for key, value in document.items():
        assert not isinstance(value, dict | list)  # The format has no nesting.
        lines.append(key.encode() + b"=" + flat_printed(value).replace(b"\n", b"\\n") + b"\n")
    return b"".join(lines)


def _ini(documents: Documents) -> bytes:
    (document,) = documents
    parts = []
    for section, content in document.items():
        assert isinstance(content, dict)
        parts.append(f"[{section}]\n")
        parts += [_ini_line(section, key, value) for key, value in content.items()]
    return "".join(parts).encode()


def _ini_line(section: str, key: str, value: Node) -> str:
    """Return a line that is read back as this key with this value: in quotes only where it has to be."""
    assert not isinstance(value, dict | list)
    try:
        text = flat_printed(value).decode()
    except UnicodeDecodeError:
        text = None
    for line in _ini_spellings(key, text) if text is not None else ():
        if _read_back(Ini(), f"[{DEFAULT_SECTION}]\n{line}".encode()) == [{DEFAULT_SECTION: {key: text}}]:
            return line
    raise invalid(f"{shown((section, key))} is a value that INI cannot hold; encrypt the file as binary")


def _ini_spellings(key: str, text: str) -> Iterator[str]:
    for written in (key, f"`{key}`", f'"{key}"'):
        for quote in ("", "`", '"""'):
            yield f"{written} = {quote}{text}{quote}\n"


def _binary(documents: Documents) -> bytes:
    (document,) = documents
    value = document[DATA_KEY]
    assert not isinstance(value, dict | list)
    return authenticated(value)


_WRITERS: Mapping[Format, Callable[[Documents], bytes]] = MappingProxyType(
    {
        Format.YAML: _yaml,
        Format.JSON: _json,
        Format.DOTENV: _dotenv,
        Format.INI: _ini,
        Format.BINARY: _binary,
    }
)
