"""Kubernetes Secrets, read by name or by a label in one namespace, and kept for a moment; never watched."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.kube import SECRETS, KubeClient, KubeError

SECRET_TTL = 15.0
"""Seconds a Secret is used before it is read again: a rotated key or login works after that long."""
MAX_LABELLED = 50
"""Secrets with one label in a namespace: so many keys are more than anybody rotates through."""


@dataclass(frozen=True, slots=True)
class SecretData:
    """One Secret's content.

    Attributes:
        identity: its UID and resourceVersion: changes with every write.
    """

    identity: str
    data: Mapping[str, bytes] = field(repr=False)


class ForbiddenSecretError(RetryableError):
    """The API server does not let the controller read a Secret."""


class SecretReader:
    """Reads Secrets by name, and those of a namespace that have a label."""

    def __init__(self, kube: KubeClient, *, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, SecretData | KubeError | None]] = {}
        self._labelled: dict[tuple[str, str], tuple[float, Mapping[str, SecretData] | None]] = {}

    async def read(self, namespace: str, name: str, *, unavailable: Reason) -> SecretData | None:
        """Return a Secret, or None if there is none.

        Args:
            namespace: where it is.
            name: its name.
            unavailable: the reason to give where it cannot be read.

        Raises:
            ForbiddenSecretError: the controller may not.
            RetryableError: the API server did not answer.
            PermanentError: its data is malformed.
        """
        read_at, known = self._known.get((namespace, name), (float("-inf"), None))
        if self._clock() - read_at >= SECRET_TTL:
            known = await self._get(namespace, name, unavailable=unavailable)
            self._known[(namespace, name)] = (self._clock(), known)
        if isinstance(known, KubeError):
            hint = f"; grant the controller `get` on Secret {name!r} in {namespace!r}"
            raise ForbiddenSecretError(unavailable, f"cannot read Secret {namespace}/{name}: {known.message}{hint}")
        return known

    async def _get(self, namespace: str, name: str, *, unavailable: Reason) -> SecretData | KubeError | None:
        try:
            body = await self._kube.get(SECRETS.url(namespace, name))
        except KubeError as error:
            if error.status == 403:
                return error
            message = f"cannot read Secret {namespace}/{name}: {error.message}"
            raise RetryableError(unavailable, message) from error
        return None if body is None else parse_secret(body, unavailable=unavailable)

    async def labelled(self, namespace: str, label: str, *, unavailable: Reason) -> Mapping[str, SecretData] | None:
        """Return the Secrets of a namespace whose label is "true", by name; None where the controller may not list.

        Raises:
            RetryableError: the API server did not answer.
            PermanentError: there are too many, or one's data is malformed.
        """
        listed_at, found = self._labelled.get((namespace, label), (float("-inf"), None))
        if self._clock() - listed_at < SECRET_TTL:
            return found
        query = f"?labelSelector={quote(label, safe='')}%3Dtrue&limit={MAX_LABELLED + 1}"
        try:
            body = await self._kube.get(SECRETS.url(namespace) + query) or {}
        except KubeError as error:
            if error.status != 403:
                message = f"cannot list Secrets of {namespace} with the label {label}: {error.message}"
                raise RetryableError(unavailable, message) from error
            body = None
        if body is None:
            found = None
        else:
            items = body.get("items") or []
            if len(items) > MAX_LABELLED:
                message = f"more than {MAX_LABELLED} Secrets of {namespace} have the label {label}; remove it from some"
                raise PermanentError(unavailable, message)
            found = {item["metadata"]["name"]: parse_secret(item, unavailable=unavailable) for item in items}
        self._labelled[(namespace, label)] = (self._clock(), found)
        return found


def parse_secret(body: Mapping[str, Any], *, unavailable: Reason) -> SecretData:
    """Decode a Secret as the API server gives it.

    Raises:
        PermanentError: its data is not base64.
    """
    metadata = body["metadata"]
    try:
        data = {key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()}
    except (binascii.Error, TypeError, ValueError):
        raise PermanentError(
            unavailable, f"Secret {metadata.get('namespace')}/{metadata.get('name')} holds no valid base64"
        ) from None
    return SecretData(f"{metadata.get('uid')}/{metadata.get('resourceVersion')}", data)
