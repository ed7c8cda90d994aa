"""Everything that can go wrong, by what it means for the object.

    ControllerError
    ├── RetryableError      comes right by itself: Reconciling, backoff      (SourceNotReady, StoreUnavailable, …)
    ├── PermanentError      needs a change in Git, the store or a key: Stalled, tried again at the interval
    │   └── AccessDenied    no grant covers what the object refers to
    └── ConfigError         needs a change of the spec: Stalled, tried again on a new generation

`lease_sharding.OwnershipLost` is not one of them: a lost shard is no property of the object and is never written to it.
Messages are for people, name the field or command that mends the matter, and never carry a value.
"""

from __future__ import annotations

import enum

FOREIGN_TEXT_LIMIT = 256  # Enough for a path or a code; a store's whole answer never reaches a message.


class Reason(enum.StrEnum):
    """Condition and Event reasons, PascalCase as the Kubernetes API conventions ask."""

    RECONCILIATION_SUCCEEDED = "ReconciliationSucceeded"
    """The store equals Git."""

    SOURCE_NOT_FOUND = "SourceNotFound"
    """The object that `spec.sourceRef` names does not exist."""
    SOURCE_NOT_READY = "SourceNotReady"
    """The source exists but has no artifact yet."""
    SOURCE_UNSUPPORTED = "SourceUnsupported"
    """The source is nothing that can be read: no Git in an Application, a URL of another scheme."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """The branch, tag or version that the source asks for is not in its repository; nothing is deleted."""
    REVISION_WENT_BACK = "RevisionWentBack"
    """The source went back to a revision that was applied before the present one."""
    SOURCE_NOT_VERIFIED = "SourceNotVerified"
    """`spec.requireVerifiedSource` is set, and the source has not verified the signature of what it publishes."""
    FETCH_FAILED = "FetchFailed"
    """The artifact could not be downloaded."""
    DIGEST_MISMATCH = "DigestMismatch"
    """The artifact's bytes do not match the digest that the source published."""
    INVALID_ARCHIVE = "InvalidArchive"
    """The artifact holds what an artifact must not: links, devices, paths outside, a bomb."""
    PATH_NOT_FOUND = "PathNotFound"
    """A directory that the spec names is not in the source."""
    EMPTY_SOURCE = "EmptySource"
    """The source holds no secret for this object; nothing is deleted."""

    KEY_UNAVAILABLE = "KeyUnavailable"
    """No SOPS key could be read; it may still be created."""
    KEY_EXPIRES_SOON = "KeyExpiresSoon"
    """A PGP key has expired or soon will: it decrypts as before, and nobody can encrypt for it any more."""
    DECRYPTION_FAILED = "DecryptionFailed"
    """A file could not be decrypted, or was changed after it was encrypted."""
    INVALID_DOCUMENT = "InvalidDocument"
    """A file is not what its name says."""
    BUILD_FAILED = "BuildFailed"
    """`kustomize build` failed."""

    NAME_COLLISION = "NameCollision"
    """Two keys would become one secret."""
    INVALID_NAME = "InvalidName"
    """A key cannot become a secret name of this store."""
    EMPTY_VALUE = "EmptyValue"
    """The store cannot hold an empty value."""
    VALUE_TOO_LARGE = "ValueTooLarge"
    """A value is larger than the store allows."""
    TOO_MANY_SECRETS = "TooManySecrets"
    """The object would manage more secrets than its status can record."""

    CONFLICT = "Conflict"
    """Some secrets exist and are not this object's."""
    PRUNE_BLOCKED = "PruneBlocked"
    """More secrets left Git than may be deleted without a confirmation."""

    ACCESS_DENIED = "AccessDenied"
    """The object refers to something that it has no grant for."""
    CREDENTIALS_UNAVAILABLE = "CredentialsUnavailable"
    """The login to the store is missing or incomplete."""
    STORE_ACCESS_DENIED = "StoreAccessDenied"
    """The store refused the login or a permission is missing."""
    STORE_UNAVAILABLE = "StoreUnavailable"
    """The store did not answer, or answered that it cannot now."""
    STORE_CHANGED = "StoreChanged"
    """Someone wrote the secret between our look and our write."""
    STORE_REFUSED = "StoreRefused"
    """The store refused a request as wrong."""
    RATE_LIMITED = "RateLimited"
    """The store asks for fewer calls."""

    TOO_MANY_DESTINATIONS = "TooManyDestinations"
    """There is no traces' destination left for the object; its secrets are kept in sync."""

    INVALID_SPEC = "InvalidSpec"
    """The spec is not valid."""
    DEPRECATED = "Deprecated"
    """The spec uses what has a better successor; told in an Event, never as a condition."""
    NOT_IMPLEMENTED = "NotImplemented"
    """The spec is valid, and this version of the controller cannot do it yet."""
    INTERNAL_ERROR = "InternalError"
    """A fault of the controller; its log names the type."""


class ControllerError(Exception):
    """What every error of this project is: a reason from the list above and a message for people.

    Args:
        reason: the condition reason.
        message: one sentence or two: what is wrong, where, and what mends it. Never a value.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RetryableError(ControllerError):
    """Comes right by itself; `retry_after` is the store's or source's own wish in seconds, if it told one."""

    def __init__(self, reason: Reason, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class PermanentError(ControllerError):
    """Needs a change in Git, in the store or of a key; tried again at the object's interval."""


class AccessDenied(PermanentError):  # noqa: N818 - the design and the condition reason call it so.
    """The object refers to something outside its namespace that it has no grant for."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.ACCESS_DENIED, message)


class ConfigError(ControllerError):
    """Needs a change of the spec; tried again when its generation changes."""

    def __init__(self, message: str, *, reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(reason, message)


def foreign(text: object) -> str:
    """Return text of unknown origin, fit for a message: printable, and of at most 256 characters."""
    printable = "".join(c if c.isprintable() else "?" for c in str(text))
    return printable if len(printable) <= FOREIGN_TEXT_LIMIT else printable[: FOREIGN_TEXT_LIMIT - 1] + "…"
