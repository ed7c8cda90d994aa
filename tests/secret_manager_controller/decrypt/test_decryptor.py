"""Reading whole files: what comes out, what is refused, and what no message ever holds."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from secret_manager_controller.decrypt import MAX_FILE_BYTES, Decryptor, Document, Format, KeyRing
from secret_manager_controller.decrypt.document import MAX_PATH_BYTES
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey, hash_ciphertext

Read = Callable[..., Document]
Refused = Callable[..., ControllerError]

CANARY = "c4n4ry-zebra-quilt"


def values(document: Document) -> dict[str, bytes]:
    return {".".join(map(str, leaf.path)): leaf.value.expose() for leaf in document.leaves}


# What comes out


def test_an_encrypted_file_is_opened(read: Read, forge: Any) -> None:
    document = read(forge.file({"b": "one", "a": {"c": ["two", "", None]}, "d_unencrypted": "three"}))
    assert (document.format, document.encrypted) == (Format.JSON, True)
    expected = [
        ("b", b"one", True),
        ("a.c.0", b"two", True),
        ("a.c.1", b"", False),
        ("a.c.2", b"", False),
        ("d_unencrypted", b"three", False),
    ]
    leaves = [(".".join(map(str, leaf.path)), leaf.value.expose(), leaf.encrypted) for leaf in document.leaves]
    assert expected == leaves


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (Format.YAML, b"a: 1.50\nb: [x, {c: ~}]\n", {"a": b"1.5", "b.0": b"x", "b.1.c": b""}),
        (Format.JSON, b'{"a": 1e3, "b": true}', {"a": b"1000", "b": b"true"}),
        (Format.DOTENV, b"A=x y\n", {"A": b"x y"}),
        (Format.INI, b"[s]\nk = v\n", {"s.k": b"v"}),
        (Format.BINARY, b"\x00\xff", {"data": b"\x00\xff"}),
        (Format.BINARY, b"", {"data": b""}),
        (Format.YAML, b"", {}),
        (Format.DOTENV, b"", {}),
        (Format.INI, b"", {}),
        (Format.JSON, b"{}", {}),
    ],
)
def test_a_plain_file_is_parsed(read: Read, kind: Format, data: bytes, expected: dict[str, bytes]) -> None:
    document = read(data, kind, keys=KeyRing())
    assert (expected, False) == (values(document), document.encrypted)
    assert not any(leaf.encrypted for leaf in document.leaves)


def test_a_pgp_file_is_opened(
    decryptor: Decryptor, forge: Any, gnupg: Any, fingerprint: str, pgp_ring: KeyRing
) -> None:
    entry = {"fp": fingerprint, "enc": gnupg.encrypt(forge.data_key, "-r", fingerprint), "created_at": "…"}
    file = forge.file({"a": "secret"}, age=None, pgp=[entry])
    assert values(decryptor.read(file, format=Format.JSON, path="x", keys=pgp_ring)) == {"a": b"secret"}


def test_comments_in_lists_are_dropped_and_not_counted(read: Read, forge: Any) -> None:
    def note(keys: str) -> str:
        return str(forge.seal("note", keys, "comment"))

    tree = {"l": [note("l:"), forge.seal("a", "l:"), note("l:"), note("l:"), [note("l:"), forge.seal("b", "l:")]]}
    file = json.dumps(tree | {"sops": forge.metadata("ab")}).encode()
    assert values(read(file)) == {"l.0": b"a", "l.1.0": b"b"}


def test_a_comment_rule_is_told_by_form(read: Read, forge: Any) -> None:
    tree = {"a": forge.seal("one", "a:"), "b": "two", "c": ""}
    for rule in ({"encrypted_comment_regex": "x"}, {"unencrypted_comment_regex": "x"}):
        document = read(json.dumps(tree | {"sops": forge.metadata("onetwo", **rule)}).encode())
        assert [leaf.encrypted for leaf in document.leaves] == [True, False, False]


def test_documents_are_numbered(read: Read) -> None:
    document = read(b"a: 1\n---\n---\na: 1\n", Format.YAML)
    assert [(leaf.document, leaf.path) for leaf in document.leaves] == [(0, ("a",)), (2, ("a",))]
    assert document.leaves[0].source_hash != document.leaves[1].source_hash


# Source hashes


def test_the_source_hash_of_ciphertext_needs_no_key(read: Read, forge: Any) -> None:
    file = forge.file({"a": {"b": ["secret"]}})
    (leaf,) = read(file).leaves
    ciphertext = json.loads(file)["a"]["b"][0]
    assert hash_ciphertext(b"0", b".a", b".b", b"[0]", ciphertext.encode()) == leaf.source_hash


def test_the_source_hash_of_plaintext_is_keyed(read: Read, hash_key: HashKey) -> None:
    (leaf,) = read(b"a: secret", Format.YAML).leaves
    assert hash_key.of_plaintext(b"0", b".a", b"secret") == leaf.source_hash
    (other,) = Decryptor(HashKey(b"other")).read(b"a: secret", format=Format.YAML, path="x", keys=KeyRing()).leaves
    assert other.source_hash != leaf.source_hash


def test_an_index_and_a_key_have_different_hashes(read: Read) -> None:
    (item,), (key,) = (read(text, Format.JSON).leaves for text in (b'{"a": ["x"]}', b'{"a": {"[0]": "x"}}'))
    assert item.source_hash != key.source_hash


# What is refused


def test_the_path_of_the_file_comes_first(refused: Refused) -> None:
    assert refused(b"{", path="team/app.json").message == "team/app.json: line 1, column 2: it is not JSON"


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda _, f: f.metadata("x" + CANARY), Reason.DECRYPTION_FAILED, "(MAC mismatch)"),
        (lambda _, f: f.metadata(CANARY, mac=None), Reason.INVALID_DOCUMENT, "has no `mac`"),
        (lambda _, f: f.metadata(CANARY, mac="ABC"), Reason.DECRYPTION_FAILED, "(MAC mismatch)"),
        (lambda _, f: f.metadata(CANARY, mac=f.seal("A", "x")), Reason.DECRYPTION_FAILED, "(MAC mismatch)"),
        (lambda _, f: f.metadata(CANARY, mac_only_encrypted=True), Reason.DECRYPTION_FAILED, "(MAC mismatch)"),
        (lambda _, f: f.metadata(CANARY, lastmodified="2000-01-01T00:00:00Z"), Reason.DECRYPTION_FAILED, "(MAC mis"),
        (lambda t, f: t.update(a="") or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "(MAC mismatch)"),
        (lambda t, f: t.update(b="x") or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "`b` is not encrypted, and"),
        (lambda t, f: t.update(b=5) or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "`b` is not encrypted, and"),
        (lambda t, f: t.update(b=[{"c": True}]) or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "`b[0].c` is not"),
        (lambda t, f: t.update(z=t.pop("a")) or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "`z` does not decrypt"),
        (lambda t, f: t.update(n_unencrypted=t["a"]) or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "must not be"),
        (lambda t, f: t.update(a=f.seal(CANARY, "a:", "comment")) or f.metadata(""), Reason.DECRYPTION_FAILED, "a com"),
        (lambda t, f: t.update(a=f.seal(CANARY, "a:", "int")) or f.metadata(CANARY), Reason.DECRYPTION_FAILED, "int"),
        (lambda _, f: f.metadata(CANARY, encrypted_regex="("), Reason.INVALID_DOCUMENT, "no RE2 expression"),
        (lambda _, f: f.metadata(CANARY, hidden=CANARY), Reason.INVALID_DOCUMENT, "has `hidden`"),
        (lambda _, __: None, Reason.INVALID_DOCUMENT, "is not SOPS metadata"),
        (lambda _, __: "text", Reason.INVALID_DOCUMENT, "is not SOPS metadata"),
    ],
    ids=range(18),
)
def test_a_changed_file_is_refused(
    refused: Refused, forge: Any, change: Callable[[Any, Any], Any], reason: Reason, message: str
) -> None:
    tree = forge.tree({"a": CANARY})
    block = change(tree, forge)
    error = refused(json.dumps(tree | {"sops": block}).encode())
    assert message in error.message
    assert error.reason is reason
    assert CANARY not in error.message
    assert isinstance(error, PermanentError)


@pytest.mark.parametrize("kind", Format)
def test_ciphertext_without_metadata_is_refused(refused: Refused, forge: Any, kind: Format) -> None:
    sealed = forge.seal("x", "a:")
    files = {
        Format.YAML: f"a:\n  - {sealed}\n",
        Format.JSON: json.dumps({"a": sealed}),
        Format.DOTENV: f"A={sealed}\n",
        Format.INI: f"[s]\na = {sealed}\n",
        Format.BINARY: json.dumps({"data": sealed}),
    }
    error = refused(files[kind].encode(), kind)
    assert "no SOPS metadata; restore it from Git" in error.message
    assert error.reason is Reason.DECRYPTION_FAILED


def test_a_bare_value_is_no_binary_file(refused: Refused, forge: Any) -> None:
    assert "no SOPS metadata" in refused(forge.seal("x", "data:").encode(), Format.BINARY).message


def test_a_file_encrypted_twice_is_told(refused: Refused, forge: Any) -> None:
    error = refused(forge.file({"a": forge.seal("x", "a:")}))
    assert "`a` is encrypted twice; decrypt it once" in error.message


@pytest.mark.parametrize("content", [b"A=x\nsops_mac=%s\n", b"a: x\nsops:\n  mac: %s\n", b"[sops]\nmac = %s\n"])
def test_a_binary_file_that_holds_a_sops_file_is_told(refused: Refused, forge: Any, content: bytes) -> None:
    content %= forge.seal("mac", "time").encode()
    error = refused(forge.file({"data": content.decode()}), Format.BINARY)
    assert "it is encrypted twice" in error.message


def test_a_binary_file_may_hold_anything_else(read: Read, forge: Any) -> None:
    for content in ("", "plain", '{"data": "x"}', "sops"):
        assert values(read(forge.file({"data": content}), Format.BINARY)) == {"data": content.encode()}


@pytest.mark.parametrize("kind", [Format.DOTENV, Format.INI, Format.BINARY])
def test_a_file_of_another_format_is_told(refused: Refused, forge: Any, kind: Format) -> None:
    error = refused(forge.file({"a": "x", "b": "y"}), kind)
    assert "SOPS file of format json" in error.message


def test_a_dotenv_file_is_no_ini_file(refused: Refused, forge: Any) -> None:
    file = f"A={forge.seal('x', 'A:')}\nsops_mac={forge.seal('x', 'time')}\n"
    assert "(by its content it is a SOPS file of format dotenv)" in refused(file.encode(), Format.INI).message


def test_a_sops_file_is_no_plain_binary(refused: Refused) -> None:
    error = refused(b"a: b\nsops:\n    mac: ENC[AES256_GCM,\n", Format.BINARY)
    assert "it is no file of format binary (by its content it is a SOPS file of format yaml)" in error.message


@pytest.mark.parametrize("kind", [Format.DOTENV, Format.INI])
def test_ciphertext_in_a_file_of_a_wrong_format_is_refused(refused: Refused, forge: Any, kind: Format) -> None:
    line = json.dumps({"a": forge.seal("x", "a:")})
    assert "no SOPS metadata" in refused(line.encode(), kind).message


def test_without_keys_it_can_wait(refused: Refused, forge: Any) -> None:
    error = refused(forge.file({"a": CANARY}), keys=KeyRing())
    assert isinstance(error, RetryableError)
    assert error.reason is Reason.KEY_UNAVAILABLE


@pytest.mark.parametrize("kind", Format)
def test_a_file_that_is_too_large_is_refused(refused: Refused, kind: Format) -> None:
    start = time.perf_counter()
    error = refused(b"#" * (MAX_FILE_BYTES + 1), kind)
    assert "larger than 1048576 bytes" in error.message
    assert time.perf_counter() - start < 0.5


def test_a_key_path_that_is_too_long_is_refused(refused: Refused) -> None:
    assert "key path of more than" in refused(json.dumps({"k" * MAX_PATH_BYTES: {"l": "x"}}).encode()).message


@pytest.mark.parametrize("kind", [Format.YAML, Format.JSON, Format.DOTENV, Format.INI])
def test_what_is_not_utf_8_is_refused(refused: Refused, kind: Format) -> None:
    assert "is not UTF-8" in refused(b"a=\xff", kind).message


def test_the_slowest_file_takes_a_second_at_most(read: Read, forge: Any) -> None:
    comment = forge.seal("c", "l:", "comment")
    items = [item for number in range(3000) for item in (comment, forge.seal("v", "l:"))]
    file = json.dumps({"l": items, "sops": forge.metadata("v" * 3000)}).encode()
    start = time.perf_counter()
    assert len(read(file).leaves) == 3000
    assert time.perf_counter() - start < 2


# Leaks


@pytest.mark.parametrize("kind", Format)
def test_no_error_holds_a_value(forge: Any, read: Read, kind: Format, caplog: pytest.LogCaptureFixture) -> None:
    """Damage a file at every place: whatever is raised, no canary is in it, nor behind it."""
    caplog.set_level(logging.DEBUG)
    file = bytearray(_file_with_canary(forge, kind))
    forms = [CANARY, base64.b64encode(CANARY.encode()).decode(), CANARY.encode().hex()]
    for at in range(0, len(file), max(1, len(file) // 400)):
        damaged = bytes(file[:at]) + bytes([file[at] ^ 0x11]) + bytes(file[at + 1 :])
        try:
            read(damaged, kind)
        except ControllerError as error:
            told = "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
            assert error.__cause__ is None
            assert error.__context__ is None
            assert not any(form in told for form in forms), told
    assert caplog.text == ""


def _file_with_canary(forge: Any, kind: Format) -> bytes:
    if kind in (Format.JSON, Format.BINARY, Format.YAML):  # JSON is YAML.
        return bytes(forge.file({"data": CANARY}))
    if kind is Format.DOTENV:
        return f"# note\nA={CANARY}\nB=x\n".encode()
    return f'[s]\na = {CANARY}\nb = """{CANARY}\n{CANARY}"""\n'.encode()


def test_documents_do_not_print_values(read: Read, forge: Any) -> None:
    document = read(forge.file({"a": CANARY}))
    assert CANARY not in repr(document) + str(document)
    with pytest.raises(TypeError):
        pickle.dumps(document)


# Threads


def test_files_are_read_in_threads(decryptor: Decryptor, forge: Any, age_ring: KeyRing) -> None:
    files = [forge.file({"a": f"secret {number}"}) for number in range(40)]

    def read(file: bytes) -> bytes:
        return decryptor.read(file, format=Format.JSON, path="x", keys=age_ring).leaves[0].value.expose()

    with ThreadPoolExecutor(8) as pool:
        assert [f"secret {number}".encode() for number in range(40)] == list(pool.map(read, files))
