"""The values of a SOPS file: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

Source: aes/cipher.go of getsops/sops. AES-256 in GCM with a 32-byte nonce; the additional data is
the key path. The type is not authenticated: it says how the plaintext is to be read.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secret_manager_controller.decrypt.scalars import INT64_MAX, INT64_MIN, Scalar, Timestamp

ENCRYPTED_PREFIX = "ENC[AES256_GCM,"
DATA_KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = range(8, 129)  # What OpenSSL takes; sops writes 32.

# sops itself takes anything in the places of the base64 and anything after the bracket. What it
# writes has this form, and a stricter reader leaves fewer spellings of one value.
_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_VALUE = re.compile(rf"ENC\[AES256_GCM,data:({_BASE64}),iv:({_BASE64}),tag:({_BASE64}),type:([a-z]+)\]")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|Inf)|NaN")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class UndecipherableError(Exception):
    """A value that is no SOPS value or does not decrypt: a sentence's end, without the value."""


@dataclass(frozen=True, slots=True)
class Comment:
    """A decrypted comment: SOPS writes comments inside lists as list items."""


def looks_encrypted(value: object) -> bool:
    """Tell whether a scalar has the form of a SOPS value, be it a damaged one."""
    if isinstance(value, bytes):
        return value.lstrip().startswith(ENCRYPTED_PREFIX.encode())
    return isinstance(value, str) and value.lstrip().startswith(ENCRYPTED_PREFIX)


def holds_ciphertext(data: bytes) -> bool:
    """Tell whether a file has a whole SOPS value anywhere, as when it is read in a wrong format."""
    return _VALUE.search(data.decode("latin-1")) is not None


class Cipher:
    """Decrypts the values of one file with its data key.

    Raises:
        UndecipherableError: the data key has not 32 bytes.
    """

    def __init__(self, data_key: bytes) -> None:
        if len(data_key) != DATA_KEY_BYTES:
            raise UndecipherableError("its data key is not one of AES-256")
        self._gcm = AESGCM(data_key)

    def decrypt(self, value: str, additional_data: str) -> Scalar | Comment:
        """Return what a value holds.

        Args:
            value: the whole `ENC[…]` text.
            additional_data: the keys on its path, each followed by a colon.

        Raises:
            UndecipherableError: it is malformed, was changed, or stands under another path.
        """
        match = _VALUE.fullmatch(value)
        if match is None:
            raise UndecipherableError("is not of the form that SOPS writes")
        data, nonce, tag = (_decoded(part) for part in match.group(1, 2, 3))
        if len(tag) != TAG_BYTES or len(nonce) not in NONCE_BYTES:
            raise UndecipherableError("is not of the form that SOPS writes")
        plaintext = self._opened(nonce, data + tag, additional_data.encode())
        if plaintext is None:
            raise UndecipherableError("does not decrypt: it, or a key above it, was changed after it was encrypted")
        return _typed(plaintext, match.group(4))

    def _opened(self, nonce: bytes, sealed: bytes, additional_data: bytes) -> bytes | None:
        try:
            return self._gcm.decrypt(nonce, sealed, additional_data)
        except InvalidTag:
            return None


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""  # Too short for what follows, and refused there.


def _typed(plaintext: bytes, kind: str) -> Scalar | Comment:
    """Read a plaintext as its type says, as `Decrypt` in aes/cipher.go does.

    That knows `bytes` too, and ends in a panic on it; only sops 1.x wrote it.
    """
    if kind == "comment":
        return Comment()
    text = _text(plaintext)
    if kind == "str":
        return plaintext if text is None else text
    if kind not in ("int", "float", "bool", "time"):
        raise UndecipherableError("has a type that this controller does not know")
    value = None if text is None else _number(text, kind)
    if value is None:
        raise UndecipherableError(f"does not hold the {kind} that it says it holds")
    return value


def _text(plaintext: bytes) -> str | None:
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        return None


def _number(text: str, kind: str) -> Scalar:
    if kind == "int" and _INTEGER.fullmatch(text) and INT64_MIN <= int(text) <= INT64_MAX:
        return int(text)
    if kind == "float" and _FLOAT.fullmatch(text):
        return float(text)
    if kind == "bool" and text in _TRUE | _FALSE:
        return text in _TRUE
    if kind == "time" and _TIME.fullmatch(text):
        return Timestamp(text)
    return None
