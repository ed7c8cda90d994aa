"""What rendering makes of a document's leaves."""

from __future__ import annotations

from secret_manager_controller.decrypt import Document, Leaf
from secret_manager_controller.errors import PermanentError, Reason, foreign


def joined_key(path: tuple[str | int, ...]) -> str:
    """Return a leaf's path as one key: keys joined by `.`, list items as `[i]`, e.g. `database.hosts[0]`."""
    key = ""
    for part in path:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            key += f".{part}" if key else part
    return key


def refuse_readable(leaf: Leaf, document: Document, path: str) -> None:
    """Refuse a value that anyone can read in a file that was encrypted.

    SOPS lets a file's own rules leave values readable (`_unencrypted`, `encrypted_regex`). In a file of secrets that is
    a slip or a forgery: whoever can write to Git adds such a key, and the file still decrypts if its MAC does not cover
    it.

    Raises:
        PermanentError: InvalidDocument, with file and key.
    """
    if document.encrypted and not leaf.encrypted and leaf.value:
        key = foreign(joined_key(leaf.path))
        raise PermanentError(
            Reason.INVALID_DOCUMENT,
            f"{foreign(path)}: {key!r} is not encrypted, although the file is; encrypt the whole file with sops",
        )
