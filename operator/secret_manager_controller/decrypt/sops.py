"""Open a SOPS tree: decrypt its values, hold each to the file's rule, verify the MAC.

Source: `Tree.Decrypt` in sops.go and `DecryptTree` in cmd/sops/common of getsops/sops. The MAC is
SHA-512 over the values in the file's order, upper-case hex, encrypted with the time of the last
change as additional data. It covers neither keys nor comments nor where one value ends and the next
begins; a key is covered by the additional data of the encrypted values under it.

Stricter than sops: a readable value that looks encrypted, and one that is still encrypted after
decryption, are refused.
"""

from __future__ import annotations

import bisect
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from secret_manager_controller.decrypt.cipher import (
    Cipher,
    Comment,
    UndecipherableError,
    looks_encrypted,
)
from secret_manager_controller.decrypt.document import MAX_PATH_BYTES
from secret_manager_controller.decrypt.metadata import Metadata
from secret_manager_controller.decrypt.refusal import failed, invalid, shown
from secret_manager_controller.decrypt.rules import Expectation
from secret_manager_controller.decrypt.scalars import Node, Scalar, authenticated

# `MACOnlyEncryptedInitialization` in sops.go: sha256("sops"), so that the two kinds of MAC differ.
_ONLY_ENCRYPTED_PREFIX = hashlib.sha256(b"sops").digest()

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, repr=False)
class OpenLeaf:
    """A leaf in the clear, and the text that it had in the file if that was encrypted."""

    document: int
    path: Path
    value: Scalar
    ciphertext: str | None


def plain_leaves(documents: Sequence[Node]) -> list[OpenLeaf]:
    """Return the leaves of a file without SOPS metadata.

    Raises:
        RefusedError: a value looks encrypted, so the metadata is missing.
    """
    leaves = []
    for number, document in enumerate(documents):
        for path, value in _walk(document, ()):
            if looks_encrypted(value):
                raise failed(f"{shown(path)} is encrypted, but the file has no SOPS metadata; restore it from Git")
            leaves.append(OpenLeaf(number, path, value, None))
    return leaves


def open_leaves(documents: Sequence[Node], metadata: Metadata, data_key: bytes) -> list[OpenLeaf]:
    """Return the leaves of an encrypted file, whose MAC is right.

    Args:
        documents: without the metadata.
        metadata: what was in it.
        data_key: 32 bytes.

    Raises:
        RefusedError: something was changed after it was encrypted, or was never encrypted.
    """
    try:
        opener = _Opener(metadata, Cipher(data_key))
    except UndecipherableError as error:
        problem = str(error)
    else:
        return opener.open(documents)
    raise failed(problem)


class _Opener:
    """One file, with its MAC as far as it has been read."""

    def __init__(self, metadata: Metadata, cipher: Cipher) -> None:
        self._metadata = metadata
        self._cipher = cipher
        self._only_encrypted = metadata.mac_only_encrypted
        self._hash = hashlib.sha512(_ONLY_ENCRYPTED_PREFIX if self._only_encrypted else b"")

    def open(self, documents: Sequence[Node]) -> list[OpenLeaf]:
        leaves = []
        for number, document in enumerate(documents):
            comments = _CommentItems()
            for path, value in _walk(document, ()):
                leaf = self._leaf(number, comments.shifted(path), value)
                if leaf is None:
                    comments.note(path)
                else:
                    leaves.append(leaf)
        self._verify()
        # Only now: before, a changed file would be told to be encrypted twice.
        for leaf in leaves:
            if looks_encrypted(leaf.value):
                raise failed(f"{shown(leaf.path)} is encrypted twice; decrypt it once and commit that")
        return leaves

    def _leaf(self, document: int, path: Path, value: Scalar) -> OpenLeaf | None:
        """Open one leaf and hash it; None for an encrypted comment."""
        keys = [part for part in path if isinstance(part, str)]
        expectation = self._metadata.rule.expects(keys)
        formed = isinstance(value, str) and looks_encrypted(value)
        if expectation is Expectation.BY_FORM:
            expectation = Expectation.ENCRYPTED if formed else Expectation.READABLE
        if expectation is Expectation.READABLE:
            return self._readable(document, path, value, formed=formed)
        if value in (None, "", b""):  # sops neither encrypts nor authenticates these.
            return OpenLeaf(document, path, value, None)
        if not formed or not isinstance(value, str):
            raise failed(
                f"{shown(path)} is not encrypted, and the file's rule ({self._metadata.rule.name}) "
                "says that it has to be; encrypt it with `sops`"
            )
        opened = self._opened(path, value, "".join(f"{key}:" for key in keys))
        if isinstance(opened, Comment):
            return None
        self._hash.update(authenticated(opened))
        return OpenLeaf(document, path, opened, value)

    def _readable(self, document: int, path: Path, value: Scalar, *, formed: bool) -> OpenLeaf:
        if formed:
            raise failed(
                f"{shown(path)} is encrypted, and the file's rule ({self._metadata.rule.name}) says that it must not be"
            )
        if not self._only_encrypted:
            self._hash.update(authenticated(value))
        return OpenLeaf(document, path, value, None)

    def _opened(self, path: Path, value: str, additional_data: str) -> Scalar | Comment:
        try:
            opened = self._cipher.decrypt(value, additional_data)
        except UndecipherableError as error:
            problem = str(error)
        else:
            if not isinstance(opened, Comment) or isinstance(path[-1], int):
                return opened
            problem = "is a comment, and stands where a value belongs"
        raise failed(f"{shown(path)} {problem}")

    def _verify(self) -> None:
        try:
            mac = self._cipher.decrypt(self._metadata.mac, self._metadata.mac_data)
        except UndecipherableError:
            mac = None
        computed = self._hash.hexdigest().upper()
        if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), computed.encode()):
            raise failed(
                "it was changed after it was encrypted (MAC mismatch); encrypt a version that you trust with `sops`"
            )


class _CommentItems:
    """Comments that stand as items in lists, and the indices of items behind them without them."""

    def __init__(self) -> None:
        self._before: dict[Path, list[int]] = {}

    def note(self, path: Path) -> None:
        index = path[-1]
        assert isinstance(index, int)
        self._before.setdefault(path[:-1], []).append(index)

    def shifted(self, path: Path) -> Path:
        """Return a path whose indices do not count the comments noted so far."""
        if not self._before:
            return path
        return tuple(
            part - bisect.bisect(self._before.get(path[:at], ()), part) if isinstance(part, int) else part
            for at, part in enumerate(path)
        )


def _walk(node: Node, path: Path) -> Iterator[tuple[Path, Scalar]]:
    """Yield the leaves under a node in the file's order."""
    if not isinstance(node, dict | list):
        yield path, node
        return
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children:
        extended = (*path, key)
        if isinstance(key, str) and sum(len(part) for part in extended if isinstance(part, str)) > MAX_PATH_BYTES:
            raise invalid(f"it has a key path of more than {MAX_PATH_BYTES} characters")
        yield from _walk(child, extended)
