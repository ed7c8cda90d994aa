"""Plaintext in types that do not print, and the hashes that may be published in its stead."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import NewType

SecretName = NewType("SecretName", str)
"""The name of a secret in a store, already sanitised for it."""

Version = NewType("Version", str)
"""A store's own immutable id of one value: opaque, compared for equality only."""

SourceHash = NewType("SourceHash", str)
"""32 hex digits that identify the encrypted input of a value; an HMAC where the input is not encrypted."""

NOT_COMPARED = SourceHash("")
"""Recorded for a value that `updatePolicy: CreateOnly` left as it was: it equals no source."""

SOURCE_HASH_BYTES = 16  # 128 bits: no accidental collision among any number of secrets, half the status size.


@dataclass(frozen=True, slots=True, repr=False)
class SecretValue:
    """The bytes of one secret. Never printed, formatted or pickled; compared in constant time."""

    _data: bytes = field(repr=False)

    def expose(self) -> bytes:
        """Return the plaintext: for a store's client, a comparison or a parser, and nothing else."""
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and hmac.compare_digest(self._data, other._data)

    def __hash__(self) -> int:
        raise TypeError("a SecretValue is not hashed: its hash could be published")

    def __repr__(self) -> str:
        return "SecretValue(…)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str:
        raise TypeError("a SecretValue is not pickled: plaintext stays in memory")


@dataclass(frozen=True, slots=True, repr=False)
class HashKey:
    """The cluster's HMAC key: makes source hashes of input that is not encrypted."""

    _key: bytes = field(repr=False)

    def __repr__(self) -> str:
        return "HashKey(…)"

    def of_plaintext(self, *parts: bytes) -> SourceHash:
        """Return the source hash of unencrypted input, told apart by its parts' boundaries."""
        return SourceHash(hmac.new(self._key, _framed(parts), hashlib.sha256).hexdigest()[: 2 * SOURCE_HASH_BYTES])


def hash_ciphertext(*parts: bytes) -> SourceHash:
    """Return the source hash of encrypted input, told apart by its parts' boundaries."""
    return SourceHash(hashlib.sha256(_framed(parts)).hexdigest()[: 2 * SOURCE_HASH_BYTES])


def _framed(parts: tuple[bytes, ...]) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
