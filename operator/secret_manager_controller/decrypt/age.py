"""age: X25519 identities and what they unwrap, through pyrage.

Other recipients that age knows (passphrases, SSH keys, plug-ins, post-quantum ones) are told apart
by name; a private key of such a kind is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyrage  # type: ignore[import-untyped] # It ships neither stubs nor a py.typed marker.

IDENTITY_PREFIX = "AGE-SECRET-KEY-1"

OTHER_IDENTITIES = {
    "AGE-SECRET-KEY-PQ-1": "a post-quantum age key",
    "AGE-PLUGIN-": "an age plug-in's key",
    "-----BEGIN AGE ENCRYPTED FILE-----": "an age key behind a passphrase",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "an SSH key",
    "-----BEGIN RSA PRIVATE KEY-----": "an SSH key",
}
"""How private keys begin that age takes and this controller does not, and what they are."""


@dataclass(frozen=True, slots=True, repr=False)
class AgeIdentity:
    """An X25519 private key. Never printed; `str(identity)` of pyrage's own type would print it."""

    recipient: str
    secret: str = field(repr=False)
    _identity: Any = field(repr=False, compare=False)

    @classmethod
    def parse(cls, line: str) -> AgeIdentity | None:
        """Return the identity of one `AGE-SECRET-KEY-1…` line, None if it is damaged."""
        try:
            identity = pyrage.x25519.Identity.from_str(line)
        except pyrage.IdentityError:
            return None
        return cls(recipient=str(identity.to_public()), secret=line, _identity=identity)

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled: it stays in memory")


def unwrap(wrapped: str, identities: Sequence[AgeIdentity]) -> bytes | None:
    """Return what an armored age file holds, None if it is for other keys or was changed."""
    try:
        # pyrage's own types are reached here and nowhere else.
        keys = [identity._identity for identity in identities]  # noqa: SLF001
        plaintext: bytes = pyrage.decrypt(wrapped.encode(), keys)
    except pyrage.DecryptError:
        return None
    return plaintext


def kind_of(recipient: str) -> str | None:
    """Return what an age recipient is if it is not an X25519 one."""
    if recipient.startswith("ssh-"):
        return "an SSH key"
    if recipient.startswith("age1pq1"):
        return "a post-quantum key"
    if recipient.startswith("age1") and recipient.count("1") > 1:
        return "an age plug-in"
    return None
