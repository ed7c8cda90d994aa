"""The keys that the controller works with: SOPS keys of tenants, and the cluster's HMAC key."""

from __future__ import annotations

import base64
import secrets

from secret_manager_controller.controller.secrets import SecretData, SecretReader, parse_secret
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.kube import SECRETS, KubeClient, KubeError
from secret_manager_controller.model.secret import HashKey

SOPS_SECRET_NAMES = ("sops-private-key", "sops-gpg-key", "gpg-key")
SOPS_DATA_KEYS = ("private-key", "key", "gpg-key")

HASH_KEY_SECRET = "secret-manager-controller-hash-key"  # noqa: S105 - a name.
HASH_KEY_DATA = "key"
HASH_KEY_BYTES = 32


class KeyRings:
    """The SOPS keys of namespaces, parsed once for each state of their Secrets."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader
        self._parsed: dict[str, tuple[tuple[str, ...], KeyRing]] = {}

    async def find(self, namespaces: tuple[str, ...]) -> KeyRing:
        """Return the keys of the first namespace that has any; an empty ring if none has.

        Args:
            namespaces: the object's own first, so that its keys win over the controller's.

        Raises:
            RetryableError: KeyUnavailable: a Secret could not be read.
            PermanentError: KeyUnavailable or InvalidDocument: a Secret holds no usable key.
        """
        for namespace in namespaces:
            found = [
                secret
                for name in SOPS_SECRET_NAMES
                if (secret := await self._reader.read(namespace, name, unavailable=Reason.KEY_UNAVAILABLE)) is not None
            ]
            if found:
                return self._ring(namespace, found)
        return KeyRing.parse(())

    def _ring(self, namespace: str, found: list[SecretData]) -> KeyRing:
        identities = tuple(secret.identity for secret in found)
        parsed = self._parsed.get(namespace)
        if parsed is None or parsed[0] != identities:
            materials = [secret.data[key] for secret in found for key in SOPS_DATA_KEYS if key in secret.data]
            if not materials:
                raise PermanentError(
                    Reason.KEY_UNAVAILABLE,
                    f"the SOPS key Secret of namespace {namespace!r} has none of the data keys "
                    f"{', '.join(SOPS_DATA_KEYS)}",
                )
            parsed = (identities, KeyRing.parse(materials))
            self._parsed[namespace] = parsed
        return parsed[1]


async def load_hash_key(kube: KubeClient, namespace: str) -> HashKey:
    """Return the cluster's HMAC key, made on first use and kept in a Secret of the controller's namespace.

    Raises:
        KubeError: the Secret can be neither read nor made.
        PermanentError: KeyUnavailable: the Secret exists without a usable key.
    """
    path = SECRETS.url(namespace, HASH_KEY_SECRET)
    body = await kube.get(path)
    if body is None:
        fresh = base64.b64encode(secrets.token_bytes(HASH_KEY_BYTES)).decode()
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": HASH_KEY_SECRET},
            "data": {HASH_KEY_DATA: fresh},
        }
        try:
            body = await kube.create(SECRETS.url(namespace), manifest)
        except KubeError as error:
            if error.status != 409:
                raise
            # Another replica was faster; its key is everybody's.
            body = await kube.get(path) or manifest | {"data": {}}
    key = parse_secret(body, unavailable=Reason.KEY_UNAVAILABLE).data.get(HASH_KEY_DATA, b"")
    if len(key) < HASH_KEY_BYTES:
        raise PermanentError(
            Reason.KEY_UNAVAILABLE,
            f"Secret {namespace}/{HASH_KEY_SECRET} has no {HASH_KEY_DATA!r} of {HASH_KEY_BYTES} bytes; delete the "
            "Secret and restart the controller, and a new one is made",
        )
    return HashKey(key)
