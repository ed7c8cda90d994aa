"""What Google Secret Manager allows, and its errors.

Sources: https://cloud.google.com/secret-manager/quotas and the API's own descriptions of each field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

MAX_PAYLOAD = 65_536
MAX_LABELS = 64
MAX_ANNOTATIONS = 16 * 1024  # Bytes of all keys and values together.
MAX_ALIASES = 50

_SECRET_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
# Letters of scripts without case are allowed as well; the tests have none.
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_ANNOTATION_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Quotas:
    """Requests a project may make in one window; None is no limit.

    Attributes:
        window: seconds; a minute in the service.
    """

    reads: int | None = None
    writes: int | None = None
    accesses: int | None = None
    window: float = 60.0


@dataclass(slots=True)
class GcpError(Exception):
    """An error that the service answers.

    Attributes:
        code: the canonical code, e.g. `NOT_FOUND`.
        reason: of google.rpc.ErrorInfo, where there is one.
        metadata: of google.rpc.ErrorInfo.
        retry_after: seconds of google.rpc.RetryInfo, where there is one.
    """

    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None


def invalid(message: str) -> GcpError:
    """Return the error of a request that is wrong in itself."""
    return GcpError("INVALID_ARGUMENT", message)


def check_secret_id(secret_id: str) -> None:
    """Raise what the service answers to a name that no secret can have."""
    if not _SECRET_ID.fullmatch(secret_id):
        raise invalid("Secret ID must match the regular expression [a-zA-Z0-9_-]{1,255}.")


def check_secret(secret: Any, *, regional: bool) -> None:
    """Raise what the service answers to a secret that cannot be stored: a `Secret` message."""
    _check_replication(secret, regional=regional)
    if len(secret.labels) > MAX_LABELS:
        raise invalid(f"A secret can have at most {MAX_LABELS} labels.")
    for key, value in secret.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise invalid(f"The label {key!r} is invalid.")
    for key in secret.annotations:
        if not _ANNOTATION_KEY.fullmatch(key):
            raise invalid(f"The annotation key {key!r} is invalid.")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in secret.annotations.items())
    if size >= MAX_ANNOTATIONS:
        raise invalid("The annotations exceed 16KiB.")
    if len(secret.version_aliases) > MAX_ALIASES:
        raise invalid(f"A secret can have at most {MAX_ALIASES} version aliases.")
    for alias in secret.version_aliases:
        if not _ALIAS.fullmatch(alias) or alias in {"latest", "NEW"}:
            raise invalid(f"The alias {alias!r} is invalid.")


def check_payload(payload: Any) -> None:
    """Raise what the service answers to a payload that it does not take: a `SecretPayload` message."""
    if not payload.data:
        raise invalid("Secret payload cannot be empty.")
    if len(payload.data) > MAX_PAYLOAD:
        raise invalid("The secret payload is too large: it may have 65536 bytes.")
    if payload.HasField("data_crc32c") and payload.data_crc32c != google_crc32c.value(payload.data):
        raise invalid("The checksum of the secret payload does not match its data.")


def places_of(replication: Any) -> tuple[str | None, ...]:
    """Return the kind of a `Replication` message and its places."""
    replicas = replication.user_managed.replicas
    return (replication.WhichOneof("replication"), *sorted(replica.location for replica in replicas))


def _check_replication(secret: Any, *, regional: bool) -> None:
    kind = secret.replication.WhichOneof("replication")
    if regional and kind is not None:
        raise invalid("A regional secret has no replication policy.")
    if not regional and kind is None:
        raise invalid("The replication policy is required.")
    if kind == "user_managed":
        locations = [replica.location for replica in secret.replication.user_managed.replicas]
        if not locations or not all(locations) or len(set(locations)) != len(locations):
            raise invalid("A user-managed replication policy needs distinct locations.")
