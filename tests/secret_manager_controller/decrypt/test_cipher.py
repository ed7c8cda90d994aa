"""Single values: what decrypts, and every form that is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.cipher import Cipher, Comment, UndecipherableError, looks_encrypted
from secret_manager_controller.decrypt.scalars import Timestamp


@pytest.fixture
def cipher(forge: Any) -> Cipher:
    return Cipher(forge.data_key)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("plain", "str", "plain"),
        (b"\xff\x00", "str", b"\xff\x00"),
        ("12", "int", 12),
        ("-9223372036854775808", "int", -(1 << 63)),
        ("1.5", "float", 1.5),
        ("+Inf", "float", float("inf")),
        ("True", "bool", True),
        ("false", "bool", False),
        ("2024-01-02T03:04:05.6+02:00", "time", Timestamp("2024-01-02T03:04:05.6+02:00")),
        ("anything", "comment", Comment()),
    ],
)
def test_a_value_is_read_as_its_type_says(
    forge: Any, cipher: Cipher, text: str | bytes, kind: str, expected: object
) -> None:
    value = cipher.decrypt(forge.seal(text, "a:b:", kind), "a:b:")
    assert expected == value
    assert type(expected) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", "int"),
        ("9223372036854775808", "int"),
        ("007", "int"),
        ("1.5.", "float"),
        ("0x1p4", "float"),
        ("yes", "bool"),
        ("yesterday", "time"),
        (b"\xff", "int"),
        ("x", "bytes"),
        ("x", "uint"),
    ],
)
def test_a_value_that_is_not_of_its_type_is_refused(forge: Any, cipher: Cipher, text: str | bytes, kind: str) -> None:
    with pytest.raises(UndecipherableError):
        cipher.decrypt(forge.seal(text, "a:", kind), "a:")


def test_a_value_under_another_path_does_not_decrypt(forge: Any, cipher: Cipher) -> None:
    with pytest.raises(UndecipherableError, match="was changed after it was encrypted"):
        cipher.decrypt(forge.seal("secret", "a:"), "b:")


@pytest.mark.parametrize("length", [12, 16, 32, 64])
def test_every_usual_nonce_length_is_read(forge: Any, cipher: Cipher, length: int) -> None:
    assert cipher.decrypt(forge.seal("secret", "a:", nonce=bytes(length)), "a:") == "secret"


def _mangled(value: str) -> dict[str, str]:
    data, nonce, tag = (part.split(":", 1)[1] for part in value[len("ENC[AES256_GCM,") : -1].split(",")[:3])
    return {
        "text behind": f"{value} ",
        "text before": f" {value}",
        "no data": value.replace(f"data:{data}", "data:"),
        "bad base64": value.replace(f"data:{data}", "data:a"),
        "other alphabet": value.replace(f"data:{data}", "data:_-8="),
        "short nonce": value.replace(nonce, base64.b64encode(bytes(4)).decode()),
        "long nonce": value.replace(nonce, base64.b64encode(bytes(200)).decode()),
        "short tag": value.replace(tag, base64.b64encode(base64.b64decode(tag)[:12]).decode()),
        "bytes moved from data to tag": value.replace(tag, base64.b64encode(b"x" + base64.b64decode(tag)).decode()),
        "other cipher": value.replace("AES256_GCM", "AES128_GCM"),
        "no type": value.replace(",type:str", ""),
        "newline": value.replace(",iv", "\n,iv"),
    }


@pytest.mark.parametrize("name", _mangled("ENC[AES256_GCM,data:YQ==,iv:YWE=,tag:YWFh,type:str]"))
def test_a_damaged_value_is_refused_without_being_shown(forge: Any, cipher: Cipher, name: str) -> None:
    mangled = _mangled(forge.seal("s3cr3t-canary", "a:"))[name]
    with pytest.raises(UndecipherableError) as caught:
        cipher.decrypt(mangled, "a:")
    assert "ENC[" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_data_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(UndecipherableError):
        Cipher(bytes(length))


@settings(deadline=None)
@given(text=st.text(min_size=1), path=st.text(max_size=30), flip=st.integers(min_value=0))
def test_any_flipped_bit_is_noticed(text: str, path: str, flip: int) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key, nonce = bytes(32), bytes(32)
    sealed = bytearray(AESGCM(key).encrypt(nonce, text.encode(), path.encode()))

    def written() -> str:
        encoded = [base64.b64encode(part).decode() for part in (sealed[:-16], nonce, sealed[-16:])]
        return "ENC[AES256_GCM,data:{},iv:{},tag:{},type:str]".format(*encoded)

    assert text == Cipher(key).decrypt(written(), path)
    sealed[flip % len(sealed)] ^= 1 << (flip % 8)
    with pytest.raises(UndecipherableError):
        Cipher(key).decrypt(written(), path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ENC[AES256_GCM,data:…", True),
        ("\n ENC[AES256_GCM,", True),
        (b"ENC[AES256_GCM,", True),
        ("enc[AES256_GCM,", False),
        ("see ENC[AES256_GCM,", False),
        (5, False),
        (None, False),
    ],
)
def test_what_looks_encrypted(value: object, expected: bool) -> None:
    assert expected == looks_encrypted(value)
