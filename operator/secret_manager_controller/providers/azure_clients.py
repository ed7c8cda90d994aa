"""Clients of Azure: made from explicit logins only, and made anew before their token expires."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from azure.core.credentials import AccessTokenInfo
from azure.identity import ClientAssertionCredential, ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.secrets import SecretClient

from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.providers.azure_calls import OtherResourceError, ask
from secret_manager_controller.providers.azure_errors import AzureRefusal, told_of_login
from secret_manager_controller.providers.azure_login import AzureClientSecret, AzureEndpoints, AzureLogin
from secret_manager_controller.providers.azure_transport import Transport
from secret_manager_controller.providers.calls import Requests
from secret_manager_controller.providers.renewing import Renewing

RENEW_BEFORE = 600.0  # Seconds before the end; an outage of Entra that is shorter goes unnoticed.
GET_TOKEN = "GetToken"  # noqa: S105 - an operation's name.


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """What one token opens.

    Attributes:
        secrets: the client of the login's vault.
        keys: makes a client for the keys of any vault, by its URL.
    """

    secrets: SecretClient
    keys: Callable[[str], KeyClient]


class VaultClients:
    """The clients of one login, to one vault's secrets; they are made anew with each token, on the same connections.

    The SDK never logs in by itself: its own login could take another request's time while one is under way.

    Args:
        login: how to get tokens.
        vault: the vault's name.
        endpoints: where the vault and Entra ID are.
        requests: of the provider.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        login: AzureLogin,
        *,
        vault: str,
        endpoints: AzureEndpoints,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _silence()
        self._login = login
        self._url = endpoints.vault_url(vault)
        self._endpoints = endpoints
        self._requests = requests
        self._transport: Transport | None = None
        self._making = asyncio.Lock()
        self._clients: Renewing[Clients] = Renewing(self._renewed, what="Azure", before=RENEW_BEFORE, clock=clock)

    @property
    def transport(self) -> Transport:
        """What the clients send with; there is one once there was a client."""
        assert self._transport is not None  # Whoever asks has a client.
        return self._transport

    async def current(self) -> Clients:
        """Return the clients; concurrent callers wait for one login.

        Raises:
            RetryableError: StoreUnavailable, RateLimited or CredentialsUnavailable.
            PermanentError: CredentialsUnavailable, StoreAccessDenied or StoreRefused.
        """
        return await self._clients.current()

    async def after(self, refused: Clients) -> Clients:
        """Return clients to use instead of those whose token a vault does not accept any more."""
        return await self._clients.after(refused)

    def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            self._transport.disconnect()

    async def _renewed(self) -> tuple[Clients, float]:
        if self._transport is None:
            self._transport = await self._requests.in_thread(self._new_transport)
        token = await self._token()
        return self._clients_of(token), max(0.0, token.expires_on - time.time())

    async def _token(self) -> AccessTokenInfo:
        transport, endpoints = self.transport, self._endpoints
        assertion = None if isinstance(self._login, AzureClientSecret) else await self._assertion()

        def exchange() -> AccessTokenInfo:
            # A credential caches its token; a new one asks for a new token.
            credential = _credential(self._login, assertion, endpoints=endpoints, transport=transport)
            return credential.get_token_info(endpoints.scope)

        outcome = await self._requests.attempt(GET_TOKEN, lambda: ask(transport, exchange))
        if isinstance(outcome, AzureRefusal):
            raise told_of_login(outcome, login=self._login, authority=endpoints.login_url)
        return outcome.result

    async def _assertion(self) -> str:
        assert not isinstance(self._login, AzureClientSecret)  # That has nothing to read.
        file = self._login.token_file
        try:
            token = await self._requests.in_thread(file.read_text)
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(
                Reason.CREDENTIALS_UNAVAILABLE,
                f"the federated token {foreign(file)} cannot be read ({type(error).__name__}); label the controller's "
                "pod with azure.workload.identity/use: true",
            ) from None
        return token.strip()

    def _new_transport(self) -> Transport:
        endpoints = self._endpoints
        return Transport(proxy=endpoints.proxy, no_proxy=endpoints.no_proxy, ca_file=endpoints.ca_file)

    def _clients_of(self, token: AccessTokenInfo) -> Clients:
        held = _HeldToken(token, self._endpoints.scope)
        options = {
            "transport": self._transport,
            "retry_total": 0,  # Retries are ours: they look at the fence.
            "permit_redirects": False,  # A value goes to the vault, and nowhere else.
            "user_agent_use_env": False,
        }
        return Clients(SecretClient(self._url, held, **options), lambda url: KeyClient(url, held, **options))


class _HeldToken:
    """A credential that never asks anybody: it has the one token."""

    def __init__(self, token: AccessTokenInfo, scope: str) -> None:
        self._token = token
        self._scope = scope

    def get_token_info(self, *scopes: str, options: object = None) -> AccessTokenInfo:
        """Return the token, if it is for what the vault's challenge asks for."""
        del options  # The challenge's tenant: a token of another one is refused by the vault.
        if scopes != (self._scope,):
            raise OtherResourceError
        return self._token

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Satisfy the protocol; the SDK prefers the other method."""
        raise NotImplementedError


def _credential(
    login: AzureLogin, assertion: str | None, *, endpoints: AzureEndpoints, transport: Transport
) -> ClientSecretCredential | ClientAssertionCredential:
    """Return a credential that knows no more than it is given.

    Raises:
        PermanentError: CredentialsUnavailable: the tenant's id or the authority cannot be.
    """
    # Whether an authority is one of Microsoft's own is the operator's to know, and asking takes a request.
    options = {
        "authority": endpoints.login_url,
        "transport": transport,
        "retry_total": 0,
        "disable_instance_discovery": True,
        "user_agent_use_env": False,
    }
    try:
        if isinstance(login, AzureClientSecret):
            credential = ClientSecretCredential(login.tenant_id, login.client_id, login.client_secret, **options)
            # The SDK takes another host from AZURE_REGIONAL_AUTHORITY_NAME, and offers no option against it.
            credential._regional_authority = None  # noqa: SLF001
            return credential
        assert assertion is not None  # It was read.
        return ClientAssertionCredential(login.tenant_id, login.client_id, lambda: assertion, **options)
    except ValueError:
        message = (
            f"the tenant id {foreign(repr(login.tenant_id))}, the client id or the authority "
            f"{foreign(endpoints.login_url)} is not valid"
        )
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message) from None


def _silence() -> None:
    """Let the SDKs log nothing: we tell each failure, and at lower levels they tell requests and tokens' owners."""
    for name in ("azure", "msal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
