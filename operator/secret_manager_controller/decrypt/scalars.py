"""Scalars as SOPS types them, and how Go writes numbers and times.

SOPS authenticates and prints values through Go's `strconv` and `time`, so these functions follow
them to the byte: https://pkg.go.dev/strconv#FormatFloat, https://pkg.go.dev/time#Layout.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A YAML timestamp, in the form in which SOPS writes it: RFC 3339 with up to nine decimals."""

    text: str

    @property
    def whole_seconds(self) -> str:
        """The same without decimals, as SOPS writes it in dotenv and INI files."""
        return re.sub(r"\.\d+", "", self.text)


Scalar: TypeAlias = str | bytes | bool | int | float | Timestamp | None
"""`bytes` is a string that is not UTF-8, or that YAML marks `!!binary`."""

Node: TypeAlias = "dict[str, Node] | list[Node] | Scalar"
"""A file's tree. Mappings are in the file's order, and their keys are unique."""


def authenticated(value: Scalar) -> bytes:
    """Return the bytes that SOPS hashes for a value, and encrypts.

    Source: `ToBytes` in sops.go; booleans are capitalised there, floats have no exponent.
    """
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"True" if value else b"False"
    if isinstance(value, float):
        return plain_float(value).encode()
    if isinstance(value, Timestamp):
        return value.text.encode()
    return value if isinstance(value, bytes) else str(value).encode()


def printed(value: Scalar) -> bytes:
    """Return a value's bytes in a decrypted file; floats are each format's own."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return authenticated(value)


def _shortest(value: float) -> tuple[str, str, int]:
    """Return sign, shortest digits that round-trip, and the decimal point's place (as in 0.12e3)."""
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    point = len(text) + exponent
    text = text.lstrip("0")
    point = point - (len(digits) - len(text)) if text else 1
    return ("-" if sign else ""), text.rstrip("0") or "0", point


def _not_finite(value: float) -> str | None:
    if math.isnan(value):
        return "NaN"
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else None


def plain_float(value: float) -> str:
    """Return a float without an exponent: Go's `FormatFloat(value, 'f', -1, 64)`."""
    special = _not_finite(value)
    if special is not None:
        return special
    sign, digits, point = _shortest(value)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}" if digits != "0" else f"{sign}0"
    whole, decimals = digits[:point].ljust(point, "0"), digits[point:]
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def exponent_float(value: float, letter: str = "e") -> str:
    """Return a finite float with an exponent of at least two digits: Go's format `'e'`."""
    sign, digits, point = _shortest(value)
    power = 0 if digits == "0" else point - 1
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{sign}{mantissa}{letter}{'-' if power < 0 else '+'}{abs(power):02d}"


def general_float(value: float, letter: str = "e") -> str:
    """Return a float as Go's `FormatFloat(value, 'g', -1, 64)`: 100000, but 1e+06."""
    special = _not_finite(value)
    if special is not None:
        return special
    _, digits, point = _shortest(value)
    power = 0 if digits == "0" else point - 1
    # With the shortest digits asked for, Go decides as if six were.
    return exponent_float(value, letter) if power < -4 or power >= 6 else plain_float(value)
