"""JSON, and the JSON envelope of binary files: `{"data": "ENC[…]", "sops": {…}}`.

Source: stores/json/store.go of getsops/sops. Stricter than it: no key twice, nothing behind the
object, UTF-8 and whole surrogate pairs only.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from secret_manager_controller.decrypt.formats.tree import Budget, Mapping, add, decoded, detach
from secret_manager_controller.decrypt.metadata import METADATA_KEY
from secret_manager_controller.decrypt.refusal import invalid
from secret_manager_controller.decrypt.scalars import (
    INT64_MAX,
    INT64_MIN,
    Node,
    Scalar,
    exponent_float,
    plain_float,
    printed,
)

DATA_KEY = "data"

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_INTEGER = len(str(INT64_MIN))


class JsonDocument:
    """Reads JSON objects."""

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the one document of a file."""
        root = _loaded(decoded(data))
        if not isinstance(root, _Object):
            raise invalid("it is not a JSON object")
        tree = _checked(root, Budget(), 0)
        assert isinstance(tree, dict)
        return [tree]

    def detach_metadata(self, documents: list[Mapping]) -> Node:
        """Remove the key `sops` and return its value."""
        return detach(documents[0], METADATA_KEY)

    def printed(self, value: Scalar) -> bytes:
        """Return a value's bytes; floats as Go's encoding/json writes them."""
        if isinstance(value, float):
            # https://pkg.go.dev/encoding/json follows ECMAScript: exponents have no leading zero.
            if value != 0 and not 1e-6 <= abs(value) < 1e21:
                return re.sub(r"e-0(\d)$", r"e-\1", exponent_float(value)).encode()
            return plain_float(value).encode()
        return printed(value)


class Binary(JsonDocument):
    """Reads binary files: anything, or SOPS' JSON envelope of anything."""

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the envelope, or one made around what is not one; its key is `data`."""
        envelope = self.envelope(data)
        return [{DATA_KEY: data} if envelope is None else envelope]

    def envelope(self, data: bytes) -> Mapping | None:
        """Return SOPS' envelope, its metadata included; None if the data is something else.

        Raises:
            RefusedError: it has SOPS metadata and more than one value.
        """
        if not data.lstrip().startswith(b"{") or b'"sops"' not in data:
            return None
        (document,) = super().parse(data)
        if METADATA_KEY not in document:
            return None
        if set(document) != {DATA_KEY, METADATA_KEY}:
            raise invalid("it is a SOPS file of format json, not binary: `data` is not its only key")
        if not isinstance(document[DATA_KEY], str):
            raise invalid("`data`, its content, is not a string")
        return document


class _Object:
    """An object's pairs, before duplicate keys are gone."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _constant(_: str) -> NoReturn:
    raise ValueError


def _integer(text: str) -> int | float:
    if len(text) <= _LONGEST_INTEGER and INT64_MIN <= int(text) <= INT64_MAX:
        return int(text)
    return float(text)


def _loaded(text: str) -> Any:
    """Return JSON as Python has it, with objects as pairs."""
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_int=_integer, parse_constant=_constant)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: it is not JSON"
    except ValueError:
        problem = "it has NaN or Infinity, which are not JSON"
    except RecursionError:
        problem = "it is nested too deep"
    raise invalid(problem)


def _checked(value: Any, budget: Budget, depth: int) -> Node:
    """Return a value as a tree, within the limits of one."""
    budget.spend(depth)
    if isinstance(value, _Object):
        mapping = Mapping()
        for key, child in value.pairs:
            add(mapping, _unicode(key), _checked(child, budget, depth + 1))
        return mapping
    if isinstance(value, list):
        return [_checked(item, budget, depth + 1) for item in value]
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float) and value - value != 0:
        raise invalid("it has a number that is too large for a float")
    assert value is None or isinstance(value, bool | int | float)
    return value


def _unicode(text: str) -> str:
    if _SURROGATE.search(text):
        raise invalid("it has a string with half of a surrogate pair")
    return text
