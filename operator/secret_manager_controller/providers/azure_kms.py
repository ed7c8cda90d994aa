"""Keys of Azure Key Vault: they unwrap data keys of SOPS files, with the login of a provider."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from azure.core.rest import HttpRequest

from secret_manager_controller.errors import PermanentError, RetryableError, foreign
from secret_manager_controller.providers.azure_calls import Answer, ask
from secret_manager_controller.providers.azure_clients import Clients, VaultClients
from secret_manager_controller.providers.azure_errors import CLOSED, NO_SUCH_HOST, AzureRefusal
from secret_manager_controller.providers.azure_login import AZURE_KEY, AzureEndpoints, AzureLogin
from secret_manager_controller.providers.calls import Requests, RetryPolicy
from secret_manager_controller.providers.kms import ciphertext_of, not_now, refused
from secret_manager_controller.providers.protocol import CallObserver

ALGORITHM = "RSA-OAEP-256"
"""What SOPS has data keys encrypted with."""

_UNUSABLE = frozenset({"KeyNotFound", "KeyDisabled", "KeyNotYetValid", "KeyOperationForbidden"})
_ANOTHER = "BadParameter"
_ALTCHARS = b"-_"  # Of base64url.


class AzureKms:
    """The keys of all vaults of one cloud, for one login; a `KeyService`.

    The SDK's own client for cryptography would read the key first, to encrypt without the vault: a request and a
    permission that decrypting does not need. So the one request goes through its client for keys.

    Args:
        clients: of the login.
        login: how messages name it.
        endpoints: which cloud it is.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self,
        clients: VaultClients,
        *,
        login: AzureLogin,
        endpoints: AzureEndpoints,
        on_call: CallObserver,
        retries: RetryPolicy,
    ) -> None:
        self._clients = clients
        self._login = login
        self._suffix = endpoints.suffix
        self._on_call = on_call
        self._retries = retries
        self._requests: dict[str, Requests] = {}
        """By vault, so that one that does not answer holds up nobody else; as many as keys are allowed of."""

    @property
    def kind(self) -> str:
        """The field of SOPS' metadata."""
        return "azure_kv"

    async def unwrap(self, key: str, wrapped: str, context: Mapping[str, str]) -> bytes:
        """Return what a key has encrypted; see `KeyService.unwrap`. SOPS gives Azure's keys no context."""
        found = AZURE_KEY.fullmatch(key)
        if found is None or found["version"] is None:
            raise refused("is no id of a key in a vault, https://<vault>.<domain>/keys/<name>/<version>")
        if found["suffix"] != self._suffix:
            raise refused(f"is in no vault of this cloud, whose domain is {self._suffix}")
        if context:
            raise refused("has an encryption context, which Key Vault does not know")
        vault, path = found["vault"], f"/keys/{found['name']}/{found['version']}/decrypt"
        body = {"alg": ALGORITHM, "value": _encode(ciphertext_of(_padded(wrapped), altchars=_ALTCHARS))}
        clients = await self._clients.current()
        outcome = await self._ask(clients, vault, path, body)
        if isinstance(outcome, AzureRefusal) and outcome.unauthorized:
            outcome = await self._ask(await self._clients.after(clients), vault, path, body)
        if isinstance(outcome, AzureRefusal):
            raise self._told(outcome)
        return outcome.result

    async def aclose(self) -> None:
        """Wait for requests under way; the connections are the clients'."""
        for requests in tuple(self._requests.values()):
            await requests.aclose()

    async def _ask(
        self, clients: Clients, vault: str, path: str, body: Mapping[str, str]
    ) -> Answer[bytes] | AzureRefusal:
        transport = self._clients.transport

        def call() -> bytes:
            answer = clients.keys(vault).send_request(HttpRequest("POST", path, json=body))
            answer.raise_for_status()
            document = answer.json()
            return _decode(document.get("value") if isinstance(document, Mapping) else None)

        return await self._requests_to(vault).attempt("Decrypt", lambda: ask(transport, call))

    def _requests_to(self, vault: str) -> Requests:
        # Not a store's requests, so no vault's budget: a data key is asked for once in a quarter of an hour.
        if vault not in self._requests:
            self._requests[vault] = Requests(
                "azure", place=f"keys of {vault}", on_call=self._on_call, retries=self._retries
            )
        return self._requests[vault]

    def _told(self, refusal: AzureRefusal) -> PermanentError | RetryableError:
        code, login = foreign(refusal.code), self._login
        if refusal.passing:
            return not_now("Azure Key Vault", code, retry_after=refusal.retry_after)
        if refusal.code == NO_SUCH_HOST:
            return refused("is in a vault that does not exist; correct its id, or encrypt for another key")
        if refusal.code in _UNUSABLE:
            return refused(f"does not exist or cannot be used ({code}); enable it, or encrypt for another key")
        if refusal.code in CLOSED:
            return refused(f"lets no request in from here ({code}); allow this cluster in its vault's network settings")
        if refusal.status == 403:
            return refused(
                f"is refused to {login.title} ({code}); grant it Microsoft.KeyVault/vaults/keys/decrypt/action on the "
                "key: the role Key Vault Crypto User has it, as has Decrypt in the vault's access policies"
            )
        if refusal.unauthorized:
            return refused(
                f"is in a vault that does not accept the token of {login.title}; check that the vault belongs to "
                f"tenant {foreign(login.tenant_id)}"
            )
        if refusal.code == _ANOTHER:
            return refused(f"did not encrypt this data key ({code})")
        return refused(f"was not used: Azure answered {code}")


def _decode(text: Any) -> bytes:
    """Return what base64url without padding, as Key Vault and SOPS write it, stands for.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(text, str):
        raise ValueError("not a text")  # noqa: TRY004 - one error for all that it is not.
    try:
        return base64.b64decode(_padded(text), altchars=_ALTCHARS, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
