"""Private keys, and reading them from what a Kubernetes Secret holds."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from secret_manager_controller.decrypt import age, openpgp
from secret_manager_controller.decrypt.openpgp import Protection, SecretKey
from secret_manager_controller.errors import PermanentError, Reason

MAX_MATERIAL_BYTES = 1 << 20
"""A Kubernetes Secret holds no more."""

_EXPECTED = (
    "expected an armored PGP private key (`gpg --armor --export-secret-keys`) or AGE-SECRET-KEY-1… lines (`age-keygen`)"
)
_PGP_BEGIN = f"-----BEGIN {openpgp.PRIVATE_KEY_BLOCK}-----"
_PGP_END = f"-----END {openpgp.PRIVATE_KEY_BLOCK}-----"

EXPIRY_NOTICE = 30 * 86_400.0
"""Seconds ahead: time enough to make a key, and to encrypt every file for it."""

# Separates the data-key cache of one process: see `KeyRing.seal`.
_PROCESS_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The private keys that one object may decrypt with. Never printed or pickled.

    Attributes:
        unreadable: namespaces that may have keys, which the controller may not read; for messages.
        data_keys: data keys, or shares of them, that a KMS has unwrapped, by what was wrapped.
        refused: recipients that a KMS was not asked about or has refused, by their labels, and why; for messages.
    """

    age: tuple[age.AgeIdentity, ...] = ()
    pgp: tuple[SecretKey, ...] = ()
    unreadable: tuple[str, ...] = ()
    data_keys: Mapping[str, bytes] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, materials: Iterable[bytes]) -> KeyRing:
        """Read keys; each material holds PGP private key blocks, age identities or both.

        Blank lines and lines that begin with `#` are skipped between keys. A key that comes twice
        counts once.

        Raises:
            PermanentError: KeyUnavailable; a material is something else, is damaged, or is a key
                that cannot be used without a passphrase, a card or a plug-in. The message counts
                materials from 1 and never shows their content.
        """
        identities: dict[str, age.AgeIdentity] = {}
        # By content: two exports of one primary key may hold different subkeys.
        keys: dict[bytes, SecretKey] = {}
        for number, material in enumerate(materials, 1):
            found = _Material(number, material)
            identities |= {identity.recipient: identity for identity in found.identities()}
            keys |= {key.packets: key for key in found.secret_keys()}
        return cls(age=tuple(identities.values()), pgp=tuple(keys.values()))

    def __bool__(self) -> bool:
        return bool(self.age or self.pgp or self.data_keys)

    def __reduce__(self) -> str:
        raise TypeError("a KeyRing is not pickled: private keys stay in memory")

    @property
    def public_names(self) -> tuple[str, ...]:
        """The age recipients and PGP fingerprints, for messages."""
        names = [f"age {identity.recipient}" for identity in self.age]
        names += [f"PGP {key.fingerprint}" for key in self.pgp]
        return tuple(dict.fromkeys(names))

    def expiring(self, now: float) -> tuple[str, ...]:
        """Return a sentence's end for each PGP key that has expired or soon will.

        An expired key decrypts as before; what nobody can do any more is encrypt for it.

        Args:
            now: seconds since 1970.
        """
        return tuple(
            f"PGP key {key.fingerprint} {'expired' if key.expires <= now else 'expires'} on {_day(key.expires)}"
            for key in self.pgp
            if key.expires is not None and key.expires - now < EXPIRY_NOTICE
        )

    @property
    def id(self) -> str:
        """32 hex digits that name this set of keys, whatever their order: a hash of public parts.

        It changes with the subkeys that can decrypt, too.
        """
        subkeys = {f"PGP key ID {key_id}" for key in self.pgp for key_id in key.key_ids}
        return hashlib.sha256("\n".join(sorted({*self.public_names, *subkeys})).encode()).hexdigest()[:32]

    @property
    def seal(self) -> bytes:
        """An HMAC of the private parts under a key of this process: names what a cache may give.

        Unlike `id` it cannot be had with public keys alone. A PGP key's public part is not checked
        against its secret part, so whoever can hand in a key could forge the id of another's ring.
        """
        parts = sorted([identity.secret.encode() for identity in self.age] + [key.packets for key in self.pgp])
        parts += sorted(wrapped.encode() + key for wrapped, key in self.data_keys.items())
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(_PROCESS_KEY, framed, "sha256")


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


class _Material:
    """One value of a Secret, split into age lines and PGP blocks."""

    def __init__(self, number: int, data: bytes) -> None:
        self._number = number
        if len(data) > MAX_MATERIAL_BYTES:
            raise self._refused(f"is larger than {MAX_MATERIAL_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None
        if text is None:
            raise self._refused(f"is not text; {_EXPECTED}")
        self._lines: list[str] = []
        self._blocks: list[str] = []
        self._split(text.replace("\r\n", "\n"))
        if not self._lines and not self._blocks:
            raise self._refused(f"holds no key; {_EXPECTED}")

    def _refused(self, what: str) -> PermanentError:
        return PermanentError(Reason.KEY_UNAVAILABLE, f"SOPS key {self._number} {what}")

    def _split(self, text: str) -> None:
        block: list[str] | None = None
        for raw in text.split("\n"):
            line = raw.strip()
            if block is not None:
                if line == _PGP_BEGIN:
                    raise self._refused("begins a PGP block inside another")
                block.append(line)
                if line == _PGP_END:
                    self._blocks.append("\n".join(block))
                    block = None
            elif line == _PGP_BEGIN:
                block = [line]
            elif line.startswith(age.IDENTITY_PREFIX):
                self._lines.append(line)
            elif line and not line.startswith("#"):
                raise self._refused(self._what_it_is(line))
        if block is not None:
            raise self._refused(f"has no `{_PGP_END}` line")

    @staticmethod
    def _what_it_is(line: str) -> str:
        for beginning, name in age.OTHER_IDENTITIES.items():
            if line.startswith(beginning):
                return f"is {name}, which this controller cannot use; {_EXPECTED}"
        if line.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----"):
            return f"is a PGP public key; {_EXPECTED}"
        return f"is no key that this controller knows; {_EXPECTED}"

    def identities(self) -> Iterable[age.AgeIdentity]:
        for line in self._lines:
            identity = age.AgeIdentity.parse(line)
            if identity is None:
                raise self._refused("has an age key that is damaged: its checksum does not match")
            yield identity

    def secret_keys(self) -> Iterable[SecretKey]:
        for block in self._blocks:
            problem, keys = None, []
            try:
                (content,) = openpgp.dearmor(block, openpgp.PRIVATE_KEY_BLOCK)
                keys = openpgp.secret_keys(content)
            except openpgp.MalformedError as error:
                problem = str(error)
            if problem is not None:
                raise self._refused(f"has a PGP block that {problem}; {_EXPECTED}")
            for key in keys:
                self._check(key)
                yield key

    def _check(self, key: SecretKey) -> None:
        if key.key_ids:
            return
        if Protection.PASSPHRASE in key.protections:
            what = (
                "is protected by a passphrase, which nobody can type here; remove it "
                "(`gpg --edit-key`, `passwd`) in a copy and export that"
            )
        elif Protection.ABSENT in key.protections:
            what = "has no secret part: it is on a card, or was left out on export"
        else:
            what = "has no key that can decrypt; add an encryption subkey"
        raise self._refused(f"(PGP {key.fingerprint}) {what}")
