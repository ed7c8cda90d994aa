"""JSON, and the envelope of binary files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.document import MAX_DEPTH
from secret_manager_controller.decrypt.formats.jsondoc import Binary, JsonDocument
from secret_manager_controller.decrypt.refusal import RefusedError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TREES = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXT,
        lambda inner: st.dictionaries(TEXT, inner) | st.lists(inner),
        max_leaves=20,
    ),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_what_is_written_is_read(tree: dict[str, Any]) -> None:
    assert [tree] == JsonDocument().parse(json.dumps(tree).encode())


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("9223372036854775807", (1 << 63) - 1),
        ("9223372036854775808", float(1 << 63)),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1e2", 100.0),
        ("1" * 300, float("1" * 300)),
    ],
)
def test_an_integer_beyond_64_bits_is_a_float(number: str, expected: float) -> None:
    ((value,),) = (document.values() for document in JsonDocument().parse(f'{{"a": {number}}}'.encode()))
    assert expected == value
    assert type(expected) is type(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b'"x"', "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b'{"a": 1', "line 1, column 8: it is not JSON"),
        (b'{"a": 1}\n{"b": 2}', "line 2, column 1: it is not JSON"),
        (b'{"a": "secret\nline"}', "it is not JSON"),
        (b"{'a': 1}", "it is not JSON"),
        (b'{"a": 1,}', "it is not JSON"),
        (b'{"a": NaN}', "NaN or Infinity"),
        (b'{"a": -Infinity}', "NaN or Infinity"),
        (b'{"a": 1e999}', "too large for a float"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large for a float"),
        (b'{"a": 1, "a": 2}', "the key `a` occurs twice"),
        (b'{"a": {"b": 1, "b": 2}}', "the key `b` occurs twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested more than"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deep"),
        (b'{"a":' + b"[" * 200_000, "nested too deep"),
        (b'{"a": [' + b"1," * 10_000 + b"1]}", "more than 10000"),
    ],
    ids=range(22),
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        JsonDocument().parse(data)
    assert message in caught.value.message
    assert caught.value.__context__ is None, "json's error holds the whole document"


def test_the_deepest_document_is_read() -> None:
    assert JsonDocument().parse(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"\x00\xff", None),
        (b"{", None),
        (b'{"data": "x"}', None),
        (b'{"data": "x", "nested": {"sops": {}}}', None),
        (b' {"data": "x", "sops": {}}', {"data": "x", "sops": {}}),
    ],
)
def test_an_envelope_is_told_from_content(data: bytes, expected: dict[str, Any] | None) -> None:
    assert expected == Binary().envelope(data)
    assert ([{"data": data}] if expected is None else [expected]) == Binary().parse(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"data": "x", "sops": {}, "more": 1}', "format json, not binary"),
        (b'{"sops": {}}', "format json, not binary"),
        (b'{"data": 5, "sops": {}}', "is not a string"),
        (b'{"sops": ', "it is not JSON"),
    ],
)
def test_an_envelope_has_data_only(data: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        Binary().envelope(data)


def test_metadata_is_taken_out() -> None:
    documents = JsonDocument().parse(b'{"a": 1, "sops": {"mac": "m"}}')
    assert JsonDocument().detach_metadata(documents) == {"mac": "m"}
    assert documents == [{"a": 1}]
    assert JsonDocument().detach_metadata(documents) is None
    assert JsonDocument().detach_metadata([{"sops": None}]) == ""
