"""Kubernetes Secrets, read by name and kept for a moment; never listed, never watched."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.kube import SECRETS, KubeClient, KubeError

SECRET_TTL = 15.0
"""Seconds a Secret is used before it is read again: a rotated key or login works after that long."""


@dataclass(frozen=True, slots=True)
class SecretData:
    """One Secret's content.

    Attributes:
        identity: its UID and resourceVersion: changes with every write.
    """

    identity: str
    data: Mapping[str, bytes] = field(repr=False)


class SecretReader:
    """Reads Secrets by name."""

    def __init__(self, kube: KubeClient, *, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, SecretData | None]] = {}

    async def read(self, namespace: str, name: str, *, unavailable: Reason) -> SecretData | None:
        """Return a Secret, or None if there is none.

        Args:
            namespace: where it is.
            name: its name.
            unavailable: the reason to give where it cannot be read.

        Raises:
            RetryableError: the API server refused or did not answer.
            PermanentError: its data is malformed.
        """
        read_at, secret = self._known.get((namespace, name), (float("-inf"), None))
        if self._clock() - read_at < SECRET_TTL:
            return secret
        try:
            body = await self._kube.get(SECRETS.url(namespace, name))
        except KubeError as error:
            hint = f"; grant the controller `get` on Secret {name!r} in {namespace!r}" if error.status == 403 else ""
            raise RetryableError(
                unavailable, f"cannot read Secret {namespace}/{name}: {error.message}{hint}"
            ) from error
        secret = None if body is None else parse_secret(body, unavailable=unavailable)
        self._known[(namespace, name)] = (self._clock(), secret)
        return secret


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
