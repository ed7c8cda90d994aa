"""YAML as go-yaml reads it; the differential test has the real one."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.document import MAX_DEPTH
from secret_manager_controller.decrypt.formats import yamldoc
from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.decrypt.scalars import Timestamp

INT64_MAX = (1 << 63) - 1


def value_of(scalar: str) -> Any:
    (document,) = YamlDocuments().parse(f"a: {scalar}\n".encode())
    return document["a"]


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None), ("nULL", "nULL"),
        ("true", True), ("TRUE", True), ("tRUE", "tRUE"), ("yes", "yes"), ("on", "on"), ("n", "n"), ("y", "y"),
        ("0", 0), ("-0", 0), ("+7", 7), ("1_000", 1000), ("0x1F", 31), ("0X1f", 31), ("-0x1", -1), ("0b101", 5),
        ("0o17", 15), ("017", 15), ("0O17", 15), ("08", 8.0), ("09.5", 9.5), ("0b+1", 1), ("0o-7", -7), ("-0b+1", "-0b+1"),
        ("0b2", "0b2"), ("0x", "0x"), ("0xg", "0xg"), ("00", 0), (str(INT64_MAX), INT64_MAX), ("-9223372036854775808", -(1 << 63)),
        ("-9223372036854775809", -9223372036854775809.0), ("18446744073709551616", 18446744073709551616.0),
        ("0x10000000000000000", "0x10000000000000000"), ("0b" + "1" * 65, "0b" + "1" * 65), ("1" * 400, "1" * 400),
        ("0" * 100 + "7", 7),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("+.5", 0.5), ("-.5", -0.5), ("1e3", 1000.0), ("1E+3", 1000.0), ("1_0.5", 10.5),
        (".1_0", ".1_0"), ("1e400", "1e400"), (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf), (".iNF", ".iNF"),
        ("inf", "inf"), ("nan", "nan"), ("1e", "1e"), ("1.2.3", "1.2.3"), ("+", "+"), (".", "."), ("12:30", "12:30"),
        ("0x1p4", "0x1p4"), ("٣", "٣"), ("1٣", "1٣"),
        ("'5'", "5"), ('"true"', "true"), ("|\n  5", "5\n"), ("! 5", "5"), ("!!str 5", "5"), ("!!int '5'", 5), ("!!float 5", 5.0),
        ("!!bool true", True), ("!!null ''", None), ("!!binary AP8=", b"\0\xff"), ("!!binary |\n  AP\n  8=", b"\0\xff"),
        ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_a_scalar_means_what_it_means_to_go_yaml(scalar: str, expected: object) -> None:
    value = value_of(scalar)
    assert expected == value
    assert type(expected) is type(value)


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("2024-01-31", "2024-01-31T00:00:00Z"),
        ("2024-1-1", "2024-01-01T00:00:00Z"),
        ("0000-02-29", "0000-02-29T00:00:00Z"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43.1-05:00"),
        ("2001-12-14T1:2:3,25Z", "2001-12-14T01:02:03.25Z"),
        ("2001-12-14 21:59:43.1", "2001-12-14T21:59:43.1Z"),
        ("2024-01-01T00:00:00.123456789123+01:60", "2024-01-01T00:00:00.123456789+02:00"),
        ("2024-01-01T00:00:00.000-00:00", "2024-01-01T00:00:00Z"),
        ("!!timestamp '2024-01-31'", "2024-01-31T00:00:00Z"),
        ("2024-02-30", None),
        ("2023-02-29", None),
        ("2024-13-01", None),
        ("2024-00-01", None),
        ("2024-01-00", None),
        ("2024-01-01T24:00:00Z", None),
        ("2024-01-01T00:60:00Z", None),
        ("2024-01-01T00:00:60Z", None),
        ("2024-01-01T00:00:00", None),
        ("2024-01-01 00:00:00Z", None),
        ("2024-01-01T00:00:00+25:00", None),
        ("2024-01-01T00:00:00+01:61", None),
        ("2024-01-01T00:00Z", None),
        ("'2024-01-31'", None),
    ],
)
def test_a_time_is_one_of_the_layouts_of_go_yaml(scalar: str, expected: str | None) -> None:
    value = value_of(scalar)
    assert (scalar.strip("'") if expected is None else Timestamp(expected)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "line 1: it has an anchor or alias"),
        ("a: 1\nb: *x", "line 2: it has an anchor or alias"),
        ("&x a: 1", "line 1: it has an anchor or alias"),
        ("a: &x [1]", "line 1: it has an anchor or alias"),
        ("<<: {a: 1}", "a merge key"),
        ("a: 1\nb: 2\na: 3", "line 3: the key `a` occurs twice"),
        ("a: 1\n'a': 3", "line 2: the key `a` occurs twice"),
        ("a: {b: 1, b: 2}", "the key `b` occurs twice"),
        ("1: a", "line 1: it has a key that is not a string"),
        ("true: a", "a key that is not a string"),
        ("? [x]\n: a", "a key that is not a string"),
        ("{}: a", "a key that is not a string"),
        ("a: !Ref x", "the tag !Ref, which is not supported"),
        ("a: !custom [x]", "the tag !custom, which is not supported"),
        ("a: !!set {x}", "the tag tag:yaml.org,2002:set"),
        ("a: !!int x", "a value that is not what its tag"),
        ("a: !!binary '%'", "a value that is not what its tag"),
        ("a: !!binary é", "a value that is not what its tag"),
        ("a: !!int 2024-01-01", "a value that is not what its tag"),
        ("%YAML 1.1\n---\na: 1", "a directive"),
        ("%TAG ! x:\n---\na: 1", "a directive"),
        ("- a", "line 1: it has a document that is not a mapping"),
        ("text", "a document that is not a mapping"),
        ("a: 1\n---\n- b", "line 2: it has a document that is not a mapping"),
        ("a: [", "line 2, column 1: it is not YAML"),
        ("\ta: 1", "line 1, column 1: it is not YAML"),
        ("a: \x07", "it is not YAML"),
        ("a: 18446744073709551615", "an integer of more than 64 bits"),
        ("a: 0xFFFFFFFFFFFFFFFF", "an integer of more than 64 bits"),
        ("a: " + "[" * (MAX_DEPTH + 1), "nested more than"),
        ("a: " + "[" * 100_000, "line 1"),
        ("- " * 100_000, "nested more than"),
        ("a:\n" + "- 1\n" * 10_001, "more than 10000"),
        ("---\n" * 10_001, "more than 10000"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        YamlDocuments().parse(text.encode())
    assert message in caught.value.message
    assert caught.value.__context__ is None


def test_a_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    bomb = "\n".join(lines).encode()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(RefusedError):
            YamlDocuments().parse(bomb)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# only a comment\n", []),
        ("---\n", [{}]),
        ("null", [{}]),
        ("---\na: 1\n---\n---\nb: 2\n...\n", [{"a": 1}, {}, {"b": 2}]),
        ("\ufeffa: 1", [{"a": 1}]),
        ("a: 1\r\nb: |\r\n  x\r\n", [{"a": 1, "b": "x\n"}]),
        ('{"a": [1, {"b": null}]}', [{"a": [1, {"b": None}]}]),
    ],
)
def test_documents_of_a_stream(text: str, expected: list[Any]) -> None:
    assert expected == YamlDocuments().parse(text.encode())


TREES = st.dictionaries(
    st.text("abc", min_size=1),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), INT64_MAX) | st.text() | st.binary(),
        lambda inner: st.dictionaries(st.text("abc", min_size=1), inner) | st.lists(inner),
        max_leaves=15,
    ),
)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_what_is_written_is_read(tree: dict[str, Any]) -> None:
    try:
        text = yaml.dump(tree, Dumper=NoAliases, sort_keys=False, allow_unicode=False, default_style='"')
    except UnicodeEncodeError:
        return
    assert [tree] == YamlDocuments().parse(text.encode())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        YamlDocuments().parse(text.encode())
    except RefusedError as refused:
        assert refused.__context__ is None


def test_metadata_is_that_of_the_first_document() -> None:
    reader = YamlDocuments()
    documents = reader.parse(b"a: 1\nsops: {mac: m}\n---\nb: 2\nsops: {mac: other}\n")
    assert reader.detach_metadata(documents) == {"mac": "m"}
    assert documents == [{"a": 1}, {"b": 2}]
    assert reader.detach_metadata([]) is None
    assert reader.detach_metadata(reader.parse(b"sops:\n")) == ""
    with pytest.raises(RefusedError, match="not in its first document"):
        reader.detach_metadata(reader.parse(b"a: 1\n---\nsops: {mac: m}"))


def test_the_parser_in_python_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a: [1, {b: 'x'}]\n---\nc: |\n  text\n"
    expected = YamlDocuments().parse(text)
    monkeypatch.setattr(yamldoc, "_LOADER", yaml.SafeLoader)
    assert expected == YamlDocuments().parse(text)
    with pytest.raises(RefusedError, match="it is not YAML"):
        YamlDocuments().parse(b"a: [")
