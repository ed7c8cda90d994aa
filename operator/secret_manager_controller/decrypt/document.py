"""What reading a file yields: leaves with their values and source hashes; and the limits of a file."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from secret_manager_controller.model.secret import SecretValue, SourceHash

MAX_FILE_BYTES = 1 << 20
"""The largest file that is read: 16 times the largest value that any of the stores holds."""

MAX_DEPTH = 32
"""The deepest nesting of mappings and lists; Kubernetes objects stay below 20."""

MAX_NODES = 10_000
"""The most keys, items and documents in one file: five times what an object may manage."""

MAX_PATH_BYTES = 4096
"""The longest key path. Each value is authenticated with its path, so this bounds the work."""


class Format(enum.StrEnum):
    """The formats that SOPS knows, by the names that `sops --input-type` takes."""

    YAML = "yaml"
    JSON = "json"
    DOTENV = "dotenv"
    INI = "ini"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One scalar of a file.

    Attributes:
        path: keys and list indices from the root, e.g. `("database", "hosts", 0)`. An INI path is
            section and key (`DEFAULT` for keys above the first section), as `sops` has it; a
            binary file has the one path `("data",)`. Indices do not count encrypted comments.
        value: the bytes that an application would read. Strings are UTF-8 or, where the file says
            `!!binary`, raw; numbers, booleans and times are as `sops --decrypt` writes them in the
            file's format. A null has no bytes.
        source_hash: of the path and the ciphertext, or an HMAC of the path and value where the
            leaf is not encrypted.
        encrypted: whether the value was encrypted. False for empty values (SOPS leaves them
            empty), for nulls, and for what the file's own rule leaves readable.
        document: the index of the YAML document; 0 in every other format.
    """

    path: tuple[str | int, ...]
    value: SecretValue
    source_hash: SourceHash
    encrypted: bool
    document: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its leaves in the file's order, those of the first YAML document first."""

    format: Format
    encrypted: bool
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class DecryptedFile:
    """A file for a program that reads files.

    Attributes:
        document: its leaves.
        content: the whole file, in its own format and without SOPS metadata; as it is if it was not encrypted.
    """

    document: Document
    content: SecretValue
