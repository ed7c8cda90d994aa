"""Why a file is refused, before anyone knows which file it was.

Parsers and ciphers raise `RefusedError` without a path; `Decryptor.read` puts the path before the
message and raises the project's own error. A refusal is never raised inside the handler of a
library's exception: that exception would stay reachable as `__context__`, and several of them
(`json.JSONDecodeError.doc`, `UnicodeDecodeError.object`) hold the whole document.
"""

from __future__ import annotations

from collections.abc import Sequence

from secret_manager_controller.errors import Reason, foreign


class RefusedError(Exception):
    """A file that is not read: a condition reason and a sentence. Never a value of the file."""

    def __init__(self, reason: Reason, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


def invalid(message: str) -> RefusedError:
    """Return the refusal of a file that is not what its name or its own metadata says."""
    return RefusedError(Reason.INVALID_DOCUMENT, message)


def failed(message: str) -> RefusedError:
    """Return the refusal of a file that could not be decrypted, or that was changed."""
    return RefusedError(Reason.DECRYPTION_FAILED, message)


def shown(path: Sequence[str | int]) -> str:
    """Return a key path as people write it, fit for a message: `database.hosts[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return f"`{foreign(text)}`"
