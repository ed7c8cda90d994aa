"""The keys that the controller works with: SOPS keys of tenants, and the cluster's HMAC key."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping

from secret_manager_controller.controller.secrets import ForbiddenSecretError, SecretData, SecretReader, parse_secret
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.kube import SECRETS, SOPS_SECRETS, KubeClient, KubeError
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.secret import HashKey

SOPS_DATA_KEYS = ("private-key", "key", "gpg-key")
SOPS_DATA_SUFFIXES = (".agekey", ".asc")
"""How Flux names the data keys of its decryption Secrets."""
SOPS_KEY_LABEL = f"{GROUP}/sops-key"
"""On a Secret of any name, with the value "true": it holds SOPS keys."""

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

        A namespace's keys are those of all its Secrets with the label, and of those with a documented name. One whose
        Secrets the controller may not read counts as one without: the ring then says so.

        Args:
            namespaces: the object's own first, so that its keys win over the controller's.

        Raises:
            RetryableError: KeyUnavailable: the API server did not answer.
            PermanentError: KeyUnavailable: a Secret holds no usable key.
        """
        unreadable: list[str] = []
        for namespace in namespaces:
            found, forbidden = await self._secrets(namespace)
            if found:
                return self._ring(namespace, found)
            if forbidden:
                unreadable.append(namespace)
        return KeyRing(unreadable=tuple(unreadable))

    async def _secrets(self, namespace: str) -> tuple[dict[str, SecretData], bool]:
        """Return a namespace's key Secrets by name, and whether some could not be looked at."""
        labelled = await self._reader.labelled(namespace, SOPS_KEY_LABEL, unavailable=Reason.KEY_UNAVAILABLE)
        found, forbidden = dict(labelled or {}), False
        for name in SOPS_SECRETS:
            if name in found:
                continue
            try:
                secret = await self._reader.read(namespace, name, unavailable=Reason.KEY_UNAVAILABLE)
            except ForbiddenSecretError:
                forbidden = True
                continue
            if secret is not None:
                found[name] = secret
        return found, forbidden

    def _ring(self, namespace: str, found: Mapping[str, SecretData]) -> KeyRing:
        identities = tuple(secret.identity for _, secret in sorted(found.items()))
        parsed = self._parsed.get(namespace)
        if parsed is None or parsed[0] != identities:
            materials = [
                material for name, secret in sorted(found.items()) for material in _materials(namespace, name, secret)
            ]
            parsed = (identities, KeyRing.parse(materials))
            self._parsed[namespace] = parsed
        return parsed[1]


def _materials(namespace: str, name: str, secret: SecretData) -> Iterator[bytes]:
    """Yield a Secret's keys, each of which is one.

    Raises:
        PermanentError: KeyUnavailable: it has none, or one that is none; the message names it.
    """
    keys = [key for key in secret.data if key in SOPS_DATA_KEYS or key.endswith(SOPS_DATA_SUFFIXES)]
    if not keys:
        wanted = ", ".join((*SOPS_DATA_KEYS, *(f"*{suffix}" for suffix in SOPS_DATA_SUFFIXES)))
        message = f"the SOPS key Secret {namespace}/{name} has none of the data keys {wanted}"
        raise PermanentError(Reason.KEY_UNAVAILABLE, message)
    for key in keys:
        problem = None
        try:
            KeyRing.parse([secret.data[key]])
        except PermanentError as error:
            problem = error.message.removeprefix("SOPS key 1 ")
        if problem is not None:
            told = f"data key {foreign(repr(key))} of the SOPS key Secret {namespace}/{name} {problem}"
            raise PermanentError(Reason.KEY_UNAVAILABLE, told)
        yield secret.data[key]


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
