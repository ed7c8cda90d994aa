"""Cloud KMS beside the Google test server: every key exists, and is another one under each name."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1.types import service

from secret_manager_controller.testing.gcp_limits import GcpError

NONCE_BYTES = 12


class GcpKeys:
    """Symmetric keys, made of their names; what one has encrypted, no other decrypts."""

    def __init__(self) -> None:
        self._seed = secrets.token_bytes(32)

    def encrypt(self, request: Any) -> Any:
        """Encrypt a plaintext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = nonce + self._key(request.name).encrypt(nonce, request.plaintext, None)
        return service.EncryptResponse.pb()(
            name=request.name, ciphertext=ciphertext, ciphertext_crc32c={"value": google_crc32c.value(ciphertext)}
        )

    def decrypt(self, request: Any) -> Any:
        """Decrypt a ciphertext.

        Raises:
            GcpError: INVALID_ARGUMENT: it is not this key's, or does not match its checksum.
        """
        data = request.ciphertext
        if request.ciphertext_crc32c.value != google_crc32c.value(data):
            raise GcpError("INVALID_ARGUMENT", "The checksum in field ciphertext_crc32c did not match the data.")
        try:
            plaintext = self._key(request.name).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            plaintext = None
        if plaintext is None:
            raise GcpError("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
        return service.DecryptResponse.pb()(
            plaintext=plaintext, plaintext_crc32c={"value": google_crc32c.value(plaintext)}
        )

    def _key(self, name: str) -> AESGCM:
        return AESGCM(hashlib.sha256(self._seed + name.encode()).digest())
