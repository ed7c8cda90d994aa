"""The keys of a Key Vault beside its secrets: RSA keys that encrypt and decrypt a data key, as SOPS asks for it.

https://learn.microsoft.com/rest/api/keyvault/keys/operation-groups
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from secret_manager_controller.testing.azure_vault import VaultError

OPERATIONS = {"decrypt": "Decrypt", "encrypt": "Encrypt"}
"""What a request's path ends with → the API's name of the operation."""
ALGORITHM = "RSA-OAEP-256"
RSA_BITS = 2048

_PATH = re.compile(r"/keys/(?P<name>[^/]+)/(?P<version>[^/]+)/(?P<operation>[a-z]+)/?")
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


@dataclass(slots=True)
class StoredKey:
    """One version of a key."""

    private: rsa.RSAPrivateKey
    enabled: bool = True


class Keys:
    """The keys of one vault, each under its name and version; the caller serialises access."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], StoredKey] = {}

    def create(self, name: str) -> str:
        """Make a new version of a key, and return the version."""
        version = secrets.token_hex(16)
        self._keys[name, version] = StoredKey(rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS))
        return version

    def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enable or disable one version."""
        self._keys[name, version].enabled = enabled

    def operate(self, url: str, operation: str, name: str, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Encrypt or decrypt with a version of a key; any other operation is refused.

        Raises:
            VaultError: KeyNotFound, KeyDisabled or BadParameter.
        """
        key = self._keys.get((name, version))
        if key is None:
            raise VaultError(404, "KeyNotFound", f"A key with (name/id) {name}/{version} was not found in this vault.")
        if not key.enabled:
            message = f"Operation {operation.lower()} is not allowed on a disabled key."
            raise VaultError(403, "Forbidden", message, "KeyDisabled")
        if body.get("alg") != ALGORITHM:
            raise VaultError(400, "BadParameter", "Property alg has an invalid value.")
        try:
            value = _decoded(str(body.get("value")))
            if operation == "Encrypt":
                result = key.private.public_key().encrypt(value, _OAEP)
            else:
                result = key.private.decrypt(value, _OAEP)
        except ValueError:
            raise VaultError(400, "BadParameter", "The parameter is incorrect.") from None
        return {"kid": f"{url}/keys/{name}/{version}", "value": base64.urlsafe_b64encode(result).decode().rstrip("=")}


def asked_of_key(method: str, path: str) -> tuple[str, str, str] | None:
    """Return operation, name and version where a request is one about a key."""
    match = _PATH.fullmatch(path)
    if match is None or method != "POST" or match["operation"] not in OPERATIONS:
        return None
    return OPERATIONS[match["operation"]], unquote(match["name"]), match["version"]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error
