"""What rendering yields: keys and values of each service, in memory only."""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.model.secret import SecretValue, SourceHash


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value, where it stands, and what identifies its input.

    Attributes:
        key: the key as the file has it; nested keys joined by `.`, list items as `[i]`.
        value: the plaintext.
        source_hash: of the encrypted input, or an HMAC of unencrypted input.
        path: the file in the source, relative to its root; for messages.
    """

    key: str
    value: SecretValue
    source_hash: SourceHash
    path: str


@dataclass(frozen=True, slots=True)
class ServiceEntries:
    """The entries of one service; its directory name is the default prefix of their names."""

    service: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Plaintext:
    """Everything that the source holds for one object."""

    services: tuple[ServiceEntries, ...]
