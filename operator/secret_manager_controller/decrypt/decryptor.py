"""Read one file: decrypt and verify it if it is a SOPS file, parse it if it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from secret_manager_controller.decrypt.cipher import holds_ciphertext
from secret_manager_controller.decrypt.datakey import DataKeys, needed_of_kms
from secret_manager_controller.decrypt.document import MAX_FILE_BYTES, DecryptedFile, Document, Format, Leaf
from secret_manager_controller.decrypt.formats.registry import READERS, sops_container
from secret_manager_controller.decrypt.formats.tree import FormatReader
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.decrypt.metadata import WrappedKey, parse_metadata
from secret_manager_controller.decrypt.plainfile import write_plain
from secret_manager_controller.decrypt.refusal import RefusedError, failed, invalid
from secret_manager_controller.decrypt.scalars import Node, authenticated
from secret_manager_controller.decrypt.sops import OpenLeaf, open_leaves, plain_leaves
from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.secret import HashKey, SecretValue, SourceHash, hash_ciphertext

T = TypeVar("T")

DEFAULT_CACHE_SIZE = 4096
"""Data keys, 32 bytes each, in a process: one for each file of a large installation."""


@dataclass(frozen=True, slots=True, repr=False)
class _Opened:
    """A file in the clear: its tree as it was parsed, and its leaves."""

    format: Format
    encrypted: bool
    documents: list[dict[str, Node]]
    leaves: list[OpenLeaf]


class Decryptor:
    """Reads files, SOPS-encrypted or not. Thread-safe; synchronous and bound by the CPU.

    Args:
        hash_key: makes the source hashes of what is not encrypted.
        gpg: the GnuPG program, a path or a name on PATH; started for PGP recipients only.
        cache_size: how many unwrapped data keys are kept in memory.
    """

    def __init__(self, hash_key: HashKey, *, gpg: str = "gpg", cache_size: int = DEFAULT_CACHE_SIZE) -> None:
        self._hash_key = hash_key
        self._data_keys = DataKeys(gpg=gpg, cache_size=cache_size)

    def read(self, data: bytes, *, format: Format, path: str, keys: KeyRing) -> Document:  # noqa: A002 - the term.
        """Return the leaves of a file.

        A file with SOPS metadata is decrypted, and its MAC verified; any other file is parsed as it
        is. Nothing of a file is returned unless all of it is right. No network is used.

        Args:
            data: the whole file.
            format: what the file's name says that it is.
            path: the file in its source, for messages.
            keys: the private keys to decrypt with.

        Raises:
            PermanentError: InvalidDocument if the file is not of that format, passes a limit or has
                SOPS metadata that is unknown; DecryptionFailed if it does not decrypt or was
                changed. Never with a value in it.
            RetryableError: KeyUnavailable if the file is encrypted and there is no key at all.
        """
        return self._told(lambda: self._document(self._opened(data, format, keys)), data, format, path)

    def decrypt(self, data: bytes, *, format: Format, path: str, keys: KeyRing) -> DecryptedFile:  # noqa: A002
        """Return the leaves of a file as `read` does, and the whole file as it reads decrypted.

        Raises:
            ControllerError: as `read`; InvalidDocument too for a value that the format cannot hold.
        """

        def decrypted() -> DecryptedFile:
            opened = self._opened(data, format, keys)
            content = write_plain(opened.documents, opened.leaves, format) if opened.encrypted else data
            return DecryptedFile(self._document(opened), SecretValue(content))

        return self._told(decrypted, data, format, path)

    def needed_of_kms(self, data: bytes, keys: KeyRing) -> tuple[WrappedKey, ...]:
        """Return which of a SOPS file's wrapped keys a KMS has to unwrap; none for what is no readable SOPS file."""
        container = sops_container(data)
        if container is None:
            return ()
        reader = READERS[container]
        try:
            block = reader.detach_metadata(reader.parse(data))
            return () if block is None else needed_of_kms(parse_metadata(block), keys)
        except RefusedError:
            return ()  # Whoever reads the file is told.

    def fingerprint(self, *parts: bytes) -> SourceHash:
        """Return a keyed hash of anything, fit to be published."""
        return self._hash_key.of_plaintext(*parts)

    @staticmethod
    def _told(work: Callable[[], T], data: bytes, format: Format, path: str) -> T:  # noqa: A002 - the term.
        """Do work on a file; what it refuses is told with the file's path."""
        try:
            return work()
        except RefusedError as refused:
            reason, message, retryable = refused.reason, refused.message, refused.retryable
        message = f"{foreign(path)}: {message}{_hint(data, format, reason)}"
        raise RetryableError(reason, message) if retryable else PermanentError(reason, message)

    def _opened(self, data: bytes, format: Format, keys: KeyRing) -> _Opened:  # noqa: A002 - the term.
        if len(data) > MAX_FILE_BYTES:
            raise invalid(f"it is larger than {MAX_FILE_BYTES} bytes")
        reader = READERS[format]
        documents = reader.parse(data)
        block = reader.detach_metadata(documents)
        if block is None:
            leaves = _plain(documents, data, format)
        else:
            metadata = parse_metadata(block)
            leaves = open_leaves(documents, metadata, self._data_keys.unwrap(metadata, keys))
            if format is Format.BINARY:
                _check_once(leaves)
        return _Opened(format, block is not None, documents, leaves)

    def _document(self, opened: _Opened) -> Document:
        reader = READERS[opened.format]
        leaves = tuple(self._leaf(leaf, reader) for leaf in opened.leaves)
        return Document(format=opened.format, encrypted=opened.encrypted, leaves=leaves)

    def _leaf(self, leaf: OpenLeaf, reader: FormatReader) -> Leaf:
        value = reader.printed(leaf.value)
        return Leaf(
            path=leaf.path,
            value=SecretValue(value),
            source_hash=self._source_hash(leaf, value),
            encrypted=leaf.ciphertext is not None,
            document=leaf.document,
        )

    def _source_hash(self, leaf: OpenLeaf, value: bytes) -> SourceHash:
        """Hash document, path and input, so that no two places of a file have one hash."""
        where = [str(leaf.document).encode()]
        where += [f"[{part}]".encode() if isinstance(part, int) else f".{part}".encode() for part in leaf.path]
        if leaf.ciphertext is None:
            return self._hash_key.of_plaintext(*where, value)
        return hash_ciphertext(*where, leaf.ciphertext.encode())


def _plain(documents: Sequence[Node], data: bytes, format: Format) -> list[OpenLeaf]:  # noqa: A002 - the term.
    """Return the leaves of a file that is not encrypted, so that no ciphertext gets into a store.

    A line of JSON is a dotenv file, too, and one that cuts a SOPS value at its first `=`: the formats
    that take anything are looked through as a whole.

    Raises:
        RefusedError: it is a SOPS file of another format, or has a SOPS value without metadata.
    """
    if sops_container(data) is not None:
        raise invalid(f"it is no file of format {format}")
    leaves = plain_leaves(documents)
    if format not in (Format.YAML, Format.JSON) and holds_ciphertext(data):
        raise failed("it is encrypted, but has no SOPS metadata; restore it from Git")
    return leaves


def _check_once(leaves: list[OpenLeaf]) -> None:
    """Refuse a binary file whose content is a SOPS file again.

    Raises:
        RefusedError: it is.
    """
    for leaf in leaves:
        if sops_container(authenticated(leaf.value)):
            raise failed("it is encrypted twice; decrypt it once with `sops` and commit that")


def _hint(data: bytes, format: Format, reason: Reason) -> str:  # noqa: A002 - the term.
    """Return what else may be wrong with a file that is not what its name says."""
    container = sops_container(data) if reason is Reason.INVALID_DOCUMENT else None
    return f" (by its content it is a SOPS file of format {container})" if container not in (None, format) else ""
