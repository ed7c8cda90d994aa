"""What the key services of all clouds share: how they tell that a data key of SOPS cannot be unwrapped."""

from __future__ import annotations

import base64
import binascii

from secret_manager_controller.errors import PermanentError, Reason, RetryableError


def ciphertext_of(wrapped: str, *, altchars: bytes | None = None) -> bytes:
    """Return what a file's base64 of an encrypted data key stands for.

    Args:
        wrapped: as SOPS' metadata has it.
        altchars: what stands there for `+` and `/`.

    Raises:
        PermanentError: DecryptionFailed: it is none, or stands for nothing.
    """
    try:
        found = base64.b64decode(wrapped, altchars=altchars, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise refused("has a ciphertext that is not base64")
    return found


def refused(what: str) -> PermanentError:
    """Return the error that a key does not unwrap a data key: what follows on the key's name."""
    return PermanentError(Reason.DECRYPTION_FAILED, what)


def not_now(service: str, code: str, *, retry_after: float | None) -> RetryableError:
    """Return the error that a service cannot unwrap a data key at the moment."""
    message = f"{service} does not unwrap a SOPS data key now ({code}); it is tried again"
    return RetryableError(Reason.KEY_UNAVAILABLE, message, retry_after=retry_after)
