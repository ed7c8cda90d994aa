"""Numbers and times as Go writes them; the expected texts come from Go 1.26."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.formats.dotenv import flat_printed
from secret_manager_controller.decrypt.formats.jsondoc import JsonDocument
from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.scalars import (
    Timestamp,
    authenticated,
    exponent_float,
    general_float,
    plain_float,
    printed,
)

# value, FormatFloat 'f', 'g', encoding/json
GO = [
    (0.0, "0", "0", "0"),
    (-0.0, "-0", "-0", "-0"),
    (1.0, "1", "1", "1"),
    (-1.5, "-1.5", "-1.5", "-1.5"),
    (100000.0, "100000", "100000", "100000"),
    (1e6, "1000000", "1e+06", "1000000"),
    (123456789.0, "123456789", "1.23456789e+08", "123456789"),
    (1e20, "100000000000000000000", "1e+20", "100000000000000000000"),
    (1.5e21, "1500000000000000000000", "1.5e+21", "1.5e+21"),
    (0.0001, "0.0001", "0.0001", "0.0001"),
    (0.00001, "0.00001", "1e-05", "0.00001"),
    (1.25e-7, "0.000000125", "1.25e-07", "1.25e-7"),
    (1e-100, "0." + "0" * 99 + "1", "1e-100", "1e-100"),
    (12345678901234567890.0, "12345678901234567000", "1.2345678901234567e+19", "12345678901234567000"),
]


@pytest.mark.parametrize(("value", "plain", "general", "json"), GO)
def test_floats_are_written_as_go_writes_them(value: float, plain: str, general: str, json: str) -> None:
    assert plain == plain_float(value)
    assert general == general_float(value)
    assert json.encode() == JsonDocument().printed(value)
    assert plain.encode() == authenticated(value)


@pytest.mark.parametrize(
    ("value", "go", "yaml"),
    [(math.inf, "+Inf", b".inf"), (-math.inf, "-Inf", b"-.inf"), (math.nan, "NaN", b".nan")],
)
def test_floats_that_are_not_finite_have_names(value: float, go: str, yaml: bytes) -> None:
    assert go == plain_float(value) == general_float(value)
    assert yaml == YamlDocuments().printed(value)
    assert go.encode() == flat_printed(value)


@pytest.mark.parametrize(("value", "expected"), [(5.0, b"5.0"), (-0.0, b"-0.0"), (1e6, b"1E+06"), (2.5, b"2.5")])
def test_a_whole_float_stays_one_in_flat_formats(value: float, expected: bytes) -> None:
    assert expected == flat_printed(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
def test_every_spelling_of_a_float_reads_back(value: float) -> None:
    for spelled in (plain_float(value), general_float(value), exponent_float(value)):
        assert value == float(spelled)
        assert math.copysign(1, value) == math.copysign(1, float(spelled))
    assert "e" not in plain_float(value)
    assert Decimal(repr(value)) == Decimal(exponent_float(value))


@pytest.mark.parametrize(
    ("value", "hashed", "shown"),
    [
        (None, b"", b""),
        (True, b"True", b"true"),
        (False, b"False", b"false"),
        (-7, b"-7", b"-7"),
        ("ü", b"\xc3\xbc", b"\xc3\xbc"),
        (b"\xff", b"\xff", b"\xff"),
        (Timestamp("2024-01-01T00:00:00.5Z"), b"2024-01-01T00:00:00.5Z", b"2024-01-01T00:00:00.5Z"),
    ],
)
def test_other_scalars(value: str | bytes | Timestamp | None, hashed: bytes, shown: bytes) -> None:
    assert hashed == authenticated(value)
    assert shown == printed(value)


def test_flat_formats_have_whole_seconds() -> None:
    assert flat_printed(Timestamp("2024-01-01T00:00:00.5+02:00")) == b"2024-01-01T00:00:00+02:00"
