"""OpenPGP packets, as far as keys are told apart: no cryptography, no `gpg`.

Read here: armor, the key IDs that a message is encrypted for, and of a secret key its fingerprint,
the key IDs that can decrypt, and whether a passphrase protects it. So a wrong key or a protected
one is refused precisely and before any process starts. Source: RFC 4880 (sections 4.2, 5.1, 5.5,
6.2, 12.2); "GNU-dummy" S2K as in GnuPG's doc/DETAILS.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

PRIVATE_KEY_BLOCK = "PGP PRIVATE KEY BLOCK"
MESSAGE_BLOCK = "PGP MESSAGE"
ANY_KEY_ID = "0" * 16
"""What stands for a hidden recipient (`gpg --throw-keyids`)."""

MAX_PACKETS = 4096

_SIGNATURE = 2
_SELF_SIGNATURES = frozenset({0x10, 0x11, 0x12, 0x13, 0x1F})
_BINDINGS = frozenset({0x18})
_MADE, _LIFETIME = 2, 9
_SESSION_KEY, _SECRET_KEY, _PUBLIC_KEY, _SECRET_SUBKEY, _MARKER = 1, 5, 6, 7, 10

# Public-key algorithm → its public fields: integers (m), length-prefixed octets (o).
_PUBLIC_FIELDS = {
    1: "mm",  # RSA
    2: "mm",  # RSA, encrypt only
    3: "mm",  # RSA, sign only
    16: "mmm",  # Elgamal
    17: "mmmm",  # DSA
    18: "omo",  # ECDH
    19: "om",  # ECDSA
    22: "om",  # EdDSA
}
_DECRYPTING = frozenset({1, 2, 16, 18})
_UNPROTECTED = 0
_GNU_DUMMY = 101


class MalformedError(Exception):
    """Not OpenPGP, or of a form that is not read here: a sentence's end, without any content."""


class Protection(enum.Enum):
    """What stands in the way of a secret key's use."""

    NONE = enum.auto()
    PASSPHRASE = enum.auto()
    ABSENT = enum.auto()
    """The secret part is elsewhere: on a card, or left out on export."""


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """A primary key with its subkeys, as `gpg --export-secret-keys` writes one. Never printed.

    Attributes:
        packets: the whole key, not armored.
        fingerprint: of the primary key, upper-case hex.
        key_ids: of the keys that can decrypt and are in here without a passphrase.
        protections: of every key that could decrypt if its secret part can be used.
        expires: when nobody can encrypt for it any more, in seconds since 1970; None if that is never.
    """

    packets: bytes
    fingerprint: str
    key_ids: frozenset[str]
    protections: frozenset[Protection]
    expires: float | None = None


def dearmor(text: str, block: str) -> list[bytes]:
    """Return the content of every armored block of a kind, in the text's order.

    Raises:
        MalformedError: a block's base64 is broken.
    """
    blocks: list[bytes] = []
    body: list[str] | None = None
    for line in map(str.strip, text.split("\n")):
        if line == f"-----BEGIN {block}-----":
            body = []
        elif line == f"-----END {block}-----" and body is not None:
            blocks.append(_decoded(body))
            body = None
        elif body is not None:
            body.append(line)
    return blocks


def _decoded(lines: list[str]) -> bytes:
    # Header lines end with the first blank line; a block without any starts with that line.
    start = lines.index("") + 1 if "" in lines else 0
    encoded = "".join(line for line in lines[start:] if not line.startswith("="))
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        pass
    raise MalformedError("is not armored as OpenPGP says")


def recipients(message: bytes) -> tuple[str, ...]:
    """Return the key IDs that a message is encrypted for, upper-case hex.

    Raises:
        MalformedError: it does not begin with a session key for a public key.
    """
    key_ids = []
    for tag, body in _packets(message):
        if tag != _SESSION_KEY:
            break
        if len(body) < 10 or body[0] != 3:
            raise MalformedError("has a session key of an unknown version")
        key_ids.append(body[1:9].hex().upper())
    if not key_ids:
        raise MalformedError("is not encrypted for a PGP key")
    return tuple(key_ids)


def secret_keys(data: bytes) -> list[SecretKey]:
    """Return the secret keys in the content of one armored block.

    Raises:
        MalformedError: it is something else, or a key of a version other than 4.
    """
    keys: list[SecretKey] = []
    packets: list[tuple[int, bytes]] = []
    for tag, body in _packets(data):
        if tag == _SECRET_KEY and packets:
            keys.append(_secret_key(packets))
            packets = []
        if tag == _PUBLIC_KEY or (not packets and tag not in (_SECRET_KEY, _MARKER)):
            raise MalformedError("does not hold a secret key")
        if tag != _MARKER:
            packets.append((tag, body))
    if not packets:
        raise MalformedError("does not hold a secret key")
    return [*keys, _secret_key(packets)]


def _secret_key(packets: list[tuple[int, bytes]]) -> SecretKey:
    key_ids, protections = set(), set()
    fingerprint = ""
    primary_end = math.inf
    ends: list[float] = []
    for number, (tag, body) in enumerate(packets):
        if tag not in (_SECRET_KEY, _SECRET_SUBKEY):
            continue
        if not body or body[0] != 4:
            raise MalformedError("holds a key of an OpenPGP version other than 4")
        public_length = _public_length(body)
        if public_length is None:
            if tag == _SECRET_KEY:
                raise MalformedError("holds a key of an unknown algorithm")
            continue  # A subkey that the primary key's owner has besides usable ones.
        own = _fingerprint(body[:public_length])
        fingerprint = fingerprint or own
        end = _end(body, packets[number + 1 :], tag)
        if tag == _SECRET_KEY:
            primary_end = end
        if body[5] in _DECRYPTING:
            ends.append(min(end, primary_end))
            protection = _protection(body[public_length:])
            protections.add(protection)
            if protection is Protection.NONE:
                key_ids.add(own[-16:])
    return SecretKey(
        packets=b"".join(_packet(tag, body) for tag, body in packets),
        fingerprint=fingerprint,
        key_ids=frozenset(key_ids),
        protections=frozenset(protections),
        expires=None if max(ends, default=math.inf) == math.inf else max(ends),
    )


def _end(key: bytes, following: list[tuple[int, bytes]], tag: int) -> float:
    """Return when a key expires, by the newest signature of its owner; infinite if never (RFC 4880, 5.2.3.6)."""
    kinds = _SELF_SIGNATURES if tag == _SECRET_KEY else _BINDINGS
    newest, lifetime = -1, 0
    for other, body in following:
        if other in (_SECRET_KEY, _SECRET_SUBKEY):
            break
        if other == _SIGNATURE and len(body) > 6 and body[0] == 4 and body[1] in kinds:
            fields = dict(_subpackets(body[6 : 6 + int.from_bytes(body[4:6], "big")]))
            made = int.from_bytes(fields.get(_MADE, b""), "big")
            if made >= newest:
                newest, lifetime = made, int.from_bytes(fields.get(_LIFETIME, b""), "big")
    return int.from_bytes(key[1:5], "big") + lifetime if lifetime else math.inf


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of a signature's subpackets; what ends early ends the list."""
    at = 0
    while at < len(area):
        at, length = _subpacket_length(area, at)
        if length == 0 or at + length > len(area):
            return
        yield area[at] & 0x7F, area[at + 1 : at + length]  # The highest bit says that it is critical.
        at += length


def _subpacket_length(area: bytes, at: int) -> tuple[int, int]:
    first = area[at]
    if first == 255:
        return at + 5, int.from_bytes(area[at + 1 : at + 5], "big")
    if first >= 192:
        return at + 2, ((first - 192) << 8) + int.from_bytes(area[at + 1 : at + 2], "big") + 192
    return at + 1, first


def _public_length(body: bytes) -> int | None:
    """Return how many bytes of a secret-key packet are public; None for an unknown algorithm."""
    fields = _PUBLIC_FIELDS.get(body[5]) if len(body) > 5 else None
    if fields is None:
        return None
    at = 6
    for field in fields:
        if field == "m":
            at += 2 + (int.from_bytes(body[at : at + 2], "big") + 7) // 8
        else:
            at += 1 + (body[at] if at < len(body) else 0)
    if at >= len(body):
        raise MalformedError("holds a key that ends early")
    return at


def _fingerprint(public: bytes) -> str:
    framed = b"\x99" + len(public).to_bytes(2, "big") + public
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()


def _protection(secret: bytes) -> Protection:
    usage = secret[0]
    if usage == _UNPROTECTED:
        return Protection.NONE
    if usage in (254, 255) and secret[2:3] == bytes([_GNU_DUMMY]):
        return Protection.ABSENT
    return Protection.PASSPHRASE


def _packet(tag: int, body: bytes) -> bytes:
    """Frame a packet anew, with a header of the new format and a length of four octets."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and body of each packet; of one with an unknown or partial length, the rest."""
    at = 0
    for _ in range(MAX_PACKETS):
        if at >= len(data):
            return
        header = data[at]
        if not header & 0x80:
            raise MalformedError("is not OpenPGP")
        if header & 0x40:
            tag, start, length = header & 0x3F, *_new_length(data, at + 1)
        else:
            tag, start, length = (header >> 2) & 0x0F, *_old_length(data, at + 1, header & 3)
        if start + length > len(data):
            raise MalformedError("ends early")
        yield tag, data[start : start + length]
        at = start + length
    raise MalformedError(f"has more than {MAX_PACKETS} packets")


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at] if at < len(data) else 0
    if first < 192:
        return at + 1, first
    if first < 224:
        second = data[at + 1] if at + 1 < len(data) else 0
        return at + 2, ((first - 192) << 8) + second + 192
    if first == 255:
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    return at + 1, max(len(data) - at - 1, 0)  # Partial: only the encrypted data comes in parts.


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == 3:
        return at, len(data) - at
    size = 1 << kind
    return at + size, int.from_bytes(data[at : at + size], "big")
