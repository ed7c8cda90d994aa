"""Decrypted files written anew: what every format holds, and what it cannot hold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing
from secret_manager_controller.decrypt.formats.registry import READERS
from secret_manager_controller.decrypt.plainfile import write_plain
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.decrypt.scalars import Timestamp
from secret_manager_controller.decrypt.sops import OpenLeaf, _walk
from secret_manager_controller.errors import PermanentError


def written(kind: Format, *documents: dict[str, Any]) -> bytes:
    """Write trees whose leaves are open already."""
    leaves = [
        OpenLeaf(number, path, value, None)
        for number, document in enumerate(documents)
        for path, value in _walk(document, ())
    ]
    return write_plain(documents, leaves, kind)


VALUES = {
    "text": "s3cr3t", "empty": "", "yes": "yes", "octal": "0o777", "lines": "one\ntwo\n", "quotes": "'\"`", "nul": "a\0b",
    "line separator": "\u2028", "emoji": "😀", "int": 7, "negative": -12, "float": 1.5, "large": 1e21, "whole": 1000000.0,
    "nan": math.nan, "infinite": -math.inf, "true": True, "null": None, "time": Timestamp("2024-01-31T00:00:00Z"),
    "bytes": b"\xff\x00", "list": ["a", {"b": "c"}, []], "map": {"a": {}, "b": {"c": 1}},
}  # fmt: skip


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # NaN is not equal to itself, and prints all the same.


@pytest.mark.parametrize("name", VALUES)
def test_yaml_is_read_back_as_it_was(name: str) -> None:
    document = {"key": VALUES[name], "on": "x"}
    assert same(READERS[Format.YAML].parse(written(Format.YAML, document)), [document])


def test_yaml_documents_stay_apart() -> None:
    documents = [{"a": "1"}, {}, {"b": ["2"]}]
    assert READERS[Format.YAML].parse(written(Format.YAML, *documents)) == documents


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("nan", "infinite", "bytes", "time")])
def test_json_is_read_back_as_it_was(name: str) -> None:
    document = {"key": VALUES[name], "other": "x"}
    (read,) = READERS[Format.JSON].parse(written(Format.JSON, document))
    # Go writes a whole float without a point.
    assert read == document


@pytest.mark.parametrize("value", [math.nan, math.inf, b"\xff"])
def test_json_refuses_what_it_cannot_hold(value: object) -> None:
    with pytest.raises(RefusedError, match="a value that JSON cannot hold"):
        written(Format.JSON, {"a": value})


def test_json_writes_times_as_texts_and_floats_as_go_does() -> None:
    document = {"time": Timestamp("2024-01-31T00:00:00Z"), "float": 1e21}
    assert written(Format.JSON, document) == b'{\n\t"time": "2024-01-31T00:00:00Z",\n\t"float": 1e+21\n}\n'


def test_dotenv_writes_a_line_a_key() -> None:
    assert written(Format.DOTENV, {"A": "one\ntwo", "B": 'q"#', "C": ""}) == b'A=one\\ntwo\nB=q"#\nC=\n'


@pytest.mark.parametrize("text", ["plain", "", " spaces ", "a;b#c", '"quoted"', "one\ntwo", "`tick`", "a\\", "'x'"])
def test_ini_quotes_what_has_to_be(text: str) -> None:
    document = {"DEFAULT": {"k": text}, "s": {"key": text}}
    assert READERS[Format.INI].parse(written(Format.INI, document)) == [document]


@pytest.mark.parametrize("value", ['one `two` """three"""\nfour', b"\xff"])
def test_ini_refuses_what_it_cannot_hold(value: object) -> None:
    with pytest.raises(RefusedError, match="encrypt the file as binary") as caught:
        written(Format.INI, {"s": {"key": value}})
    assert "`s.key`" in caught.value.message
    assert "three" not in caught.value.message


@pytest.mark.parametrize("value", ["text", b"\xff\x00"])
def test_binary_is_the_content_itself(value: str | bytes) -> None:
    assert written(Format.BINARY, {"data": value}) == (value.encode() if isinstance(value, str) else value)


def test_comments_that_are_items_are_left_out() -> None:
    tree = {"list": ["comment", "a", "comment", {"b": "c"}, "d"]}
    paths = [("list", 0), ("list", 1, "b"), ("list", 2)]
    leaves = [OpenLeaf(0, path, value, None) for path, value in zip(paths, ("A", "C", "D"), strict=True)]
    (read,) = READERS[Format.YAML].parse(write_plain([tree], leaves, Format.YAML))
    assert read == {"list": ["A", {"b": "C"}, "D"]}


def test_a_file_that_is_not_encrypted_stays_as_it_is(decryptor: Decryptor) -> None:
    data = b"# note\na:   'x'\n"
    file = decryptor.decrypt(data, format=Format.YAML, path="f", keys=KeyRing())
    assert (file.content.expose(), file.document.encrypted) == (data, False)


def test_an_encrypted_one_has_no_metadata_any_more(decryptor: Decryptor, forge: Any, age_ring: KeyRing) -> None:
    file = decryptor.decrypt(forge.file({"a": "one"}), format=Format.JSON, path="f", keys=age_ring)
    assert file.content.expose() == b'{\n\t"a": "one"\n}\n'
    assert [leaf.encrypted for leaf in file.document.leaves] == [True]
    assert "one" not in repr(file)


def test_a_refusal_names_the_file(decryptor: Decryptor, age_ring: KeyRing) -> None:
    with pytest.raises(PermanentError, match=r"^dir/f: ") as caught:
        decryptor.decrypt(b"{", format=Format.JSON, path="dir/f", keys=age_ring)
    assert caught.value.__context__ is None
