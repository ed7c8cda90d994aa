"""`application.properties`: Java's syntax in, one JSON object out."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import javaproperties
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.decrypt import Decryptor, Document, Format, KeyRing, Leaf
from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.plaintext import Entry
from secret_manager_controller.model.secret import HashKey, SecretValue, hash_ciphertext
from secret_manager_controller.render.properties import properties_entry

PATH = "a/application.properties"
CANARY = "canary-5up3rs3cr3t"
Reader = Any


def plain(data: bytes) -> Entry | None:
    decryptor = Decryptor(HashKey(b"k" * 32))

    def read(data: bytes, format: Format, path: str) -> Document:  # noqa: A002
        return decryptor.read(data, format=format, path=path, keys=KeyRing())

    return properties_entry(data, path=PATH, read_document=read)


def text(entry: Entry | None) -> str:
    assert entry is not None
    return entry.value.expose().decode()


SYNTAX = {
    "equals": (b"a=1", '{"a":"1"}'),
    "colon": (b"a:1", '{"a":"1"}'),
    "space": (b"a 1", '{"a":"1"}'),
    "spaces-around": (b"  a  =  1  ", '{"a":"1  "}'),
    "no-value": (b"a\nb=\nc:", '{"a":"","b":"","c":""}'),
    "comments": (b"# no\n! no\na=1 # yes\n", '{"a":"1 # yes"}'),
    "continuation": (b"a=1,\\\n    2,\\\n    3", '{"a":"1,2,3"}'),
    "escapes": (b"a\\=b\\:c\\ d=\\t\\n\\\\x\\q", '{"a=b:c d":"\\t\\n\\\\xq"}'),
    "unicode-escape": (b"a=na\\u00efve \\uD83D\\uDE00", '{"a":"naïve 😀"}'),
    "utf-8": ("a=naïve".encode(), '{"a":"naïve"}'),
    "latin-1": ("a=naïve".encode("latin-1"), '{"a":"naïve"}'),
    "windows-lines": (b"a=1\r\nb=2\r\n", '{"a":"1","b":"2"}'),
    "last-counts": (b"a=1\na=2", '{"a":"2"}'),
    "sorted": (b"b=1\nB=2\na=3", '{"B":"2","a":"3","b":"1"}'),
    "nameless": (b"=1", '{"":"1"}'),
    "nested-names-stay-flat": (b"a.b.c[0]=1", '{"a.b.c[0]":"1"}'),
}


@pytest.mark.parametrize(("data", "expected"), SYNTAX.values(), ids=SYNTAX)
def test_javas_syntax_becomes_json(data: bytes, expected: str) -> None:
    entry = plain(data)
    assert expected == text(entry)
    assert entry is not None
    assert (entry.key, entry.path) == ("properties", PATH)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n! here\n", b"   "])
def test_a_file_without_entries_is_none(data: bytes) -> None:
    assert plain(data) is None


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), min_size=1))
def test_every_property_arrives(properties: dict[str, str]) -> None:
    entry = plain(javaproperties.dumps(properties, timestamp=False).encode())
    assert properties == json.loads(text(entry))
    assert text(entry) == json.dumps(properties, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"a=1\n{CANARY}=\\u12z{CANARY}".encode(), "four hexadecimal digits"),
        (f"a={CANARY}\\ud800".encode(), "surrogate"),
    ],
)
def test_what_is_no_text_is_refused_and_not_shown(data: bytes, words: str) -> None:
    with pytest.raises(PermanentError, match=words) as caught:
        plain(data)
    assert Reason.INVALID_DOCUMENT is caught.value.reason
    assert PATH in caught.value.message
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert CANARY not in shown.replace(data.decode(), "")
    assert caught.value.__context__ is None


def test_the_source_hash_follows_the_input_and_is_none_of_the_plaintext() -> None:
    first, again, second = plain(b"a=1"), plain(b"a=1"), plain(b"a=2")
    assert first is not None
    assert again is not None
    assert second is not None
    assert first.source_hash == again.source_hash
    assert first.source_hash != second.source_hash
    for guess in (b"a=1", b"1", b'{"a":"1"}'):
        assert hash_ciphertext(guess) != first.source_hash
        assert hash_ciphertext(b"properties/1", guess) != first.source_hash


# --- encrypted


def test_an_encrypted_binary_file_is_parsed_after_decryption(
    reader: Reader, sops_says: Callable[[Format | None], None]
) -> None:
    sops_says(Format.BINARY)
    entry = properties_entry(b"#sops\nb = 2\na = 1\n", path=PATH, read_document=reader)
    assert text(entry) == '{"a":"1","b":"2"}'
    assert reader.formats == {PATH: Format.BINARY}


def test_an_encrypted_dotenv_file_is_taken_line_by_line(
    reader: Reader, sops_says: Callable[[Format | None], None]
) -> None:
    sops_says(Format.DOTENV)
    entry = properties_entry(b"#sops\nb.c=\\u0041\na=1\nempty=\n", path=PATH, read_document=reader)
    assert text(entry) == '{"a":"1","b.c":"\\\\u0041","empty":""}'
    assert reader.formats == {PATH: Format.DOTENV}


def test_the_source_hash_of_an_encrypted_file_covers_each_leaf(
    reader: Reader, sops_says: Callable[[Format | None], None]
) -> None:
    sops_says(Format.DOTENV)
    hashes = {
        entry.source_hash
        for data in (b"#sops\na=1\nb=2", b"#sops\na=1\nb=3", b"#sops\na=4\nb=2", b"#sops\na=1")
        if (entry := properties_entry(data, path=PATH, read_document=reader))
    }
    assert len(hashes) == 4


@pytest.mark.parametrize("container", [Format.YAML, Format.JSON, Format.INI])
def test_another_container_is_refused(
    reader: Reader, sops_says: Callable[[Format | None], None], container: Format
) -> None:
    sops_says(container)
    with pytest.raises(PermanentError, match=f"{PATH} is encrypted as {container}; encrypt it with") as caught:
        properties_entry(b"#sops\na=1", path=PATH, read_document=reader)
    assert Reason.INVALID_DOCUMENT is caught.value.reason
    assert reader.formats == {}


def test_a_readable_value_in_an_encrypted_file_is_refused(
    reader: Reader, sops_says: Callable[[Format | None], None]
) -> None:
    sops_says(Format.DOTENV)
    with pytest.raises(PermanentError, match="'b' is not encrypted") as caught:
        properties_entry(f"#sops\na=1\nb=plain:{CANARY}".encode(), path=PATH, read_document=reader)
    assert CANARY not in caught.value.message


def test_a_value_that_is_no_utf8_is_read_as_java_reads_it() -> None:
    def read(_data: bytes, format: Format, _path: str) -> Document:  # noqa: A002
        leaf = Leaf(("data",), SecretValue(b"a=\xe9"), hash_ciphertext(b"x"), encrypted=True)
        return Document(format, encrypted=True, leaves=(leaf,))

    assert text(properties_entry(b"", path=PATH, read_document=read)) == '{"a":"é"}'
