"""What the settings of all stores share: the controller's variables, and the data keys of a login's Secret."""

from __future__ import annotations

from collections.abc import Mapping

from secret_manager_controller.errors import PermanentError, Reason

Environment = Mapping[str, str]
"""The process's variables; each store reads only those that are documented for it."""


def text_of(secret: Mapping[str, bytes], *keys: str) -> str | None:
    """Return the first of the data keys that is there, without the newline of an editor; None if it holds no text.

    All that logs in is ASCII: anything else is no such text.
    """
    data = next((secret[key] for key in keys if key in secret), b"")
    try:
        return data.decode("ascii").strip() or None
    except UnicodeDecodeError:
        return None


def needed(secret: Mapping[str, bytes], key: str, *, store: str) -> str:
    """Return what a data key holds; see `text_of` and `lacks`.

    Raises:
        PermanentError: CredentialsUnavailable.
    """
    text = text_of(secret, key)
    if text is None:
        raise lacks(store, key)
    return text


def lacks(store: str, key: str) -> PermanentError:
    """Return the error that a login's Secret has no usable data key.

    Args:
        store: the block of `spec.provider` that names the Secret.
        key: the data key.
    """
    return missing(f"the Secret of spec.provider.{store}.auth.secretName has no usable data key {key!r}; add it")


def missing(message: str) -> PermanentError:
    """Return the error that something of a login is not there."""
    return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)


def quota(environment: Environment, name: str, *, default: int, counted: str) -> int:
    """Return a quota that the controller is told of by a variable.

    Args:
        environment: the controller's variables.
        name: which of them.
        default: the store's own quota.
        counted: what the number is of, e.g. `requests a minute the project allows`.

    Raises:
        PermanentError: StoreRefused: it is no number above zero.
    """
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not int(text):
        message = f"the controller's {name} must be how many {counted}, not {text[:20]!r}"
        raise PermanentError(Reason.STORE_REFUSED, message)
    return int(text)
