"""The access token of one login: asked for when it is first needed, and anew before it expires."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from secret_manager_controller.errors import ControllerError, Reason, RetryableError, foreign
from secret_manager_controller.providers import gcp_credentials as credentials
from secret_manager_controller.providers import gcp_exchange as exchange
from secret_manager_controller.providers.calls import Requests
from secret_manager_controller.providers.gcp_api import check_url
from secret_manager_controller.providers.gcp_errors import GcpRefusal, told_of_login
from secret_manager_controller.providers.gcp_exchange import Token
from secret_manager_controller.providers.gcp_login import (
    GOOGLE,
    GcpCredentialsFile,
    GcpEndpoints,
    GcpFederation,
    GcpKey,
    GcpKeyFile,
    GcpLogin,
    GcpMetadata,
)

RENEW_BEFORE = 225.0
"""Seconds before the end. The metadata server hands out the same token until four minutes before its end."""
RENEW_AGAIN = 30.0  # Seconds until the next attempt while the old token still holds.

_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address.
_METADATA, _KEY, _FEDERATION, _IMPERSONATION = "MetadataToken", "JwtBearer", "ExchangeToken", "GenerateAccessToken"

_log = logging.getLogger(__name__)


class Tokens:
    """The access token of one login. Safe for concurrent use on one event loop.

    Args:
        login: whose it is.
        endpoints: where tokens are asked for.
        requests: of the provider.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        login: GcpLogin,
        *,
        endpoints: GcpEndpoints,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._endpoints = endpoints
        self._requests = requests
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = self._expires = -math.inf

    async def current(self) -> str:
        """Return the token; concurrent callers wait for one login.

        Raises:
            RetryableError: StoreUnavailable, RateLimited or CredentialsUnavailable.
            PermanentError: CredentialsUnavailable, StoreAccessDenied or StoreRefused.
        """
        if self._clock() >= self._renew_at:
            async with self._lock:
                if self._clock() >= self._renew_at:
                    await self._renew()
        return self._token

    async def after(self, expired: str) -> str:
        """Return a token to use instead of one that Google does not accept any more."""
        async with self._lock:
            if self._token == expired:
                self._expires = -math.inf
                await self._renew()
        return self._token

    async def _renew(self) -> None:
        began = self._clock()
        try:
            token = await self._obtain()
        except ControllerError as error:
            if self._clock() >= self._expires:
                raise
            self._renew_at = self._clock() + RENEW_AGAIN
            _log.warning("the Google token could not be renewed; it still holds", extra={"reason": error.reason})
            return
        self._token, self._expires = token.value, began + token.lifetime
        self._renew_at = min(max(self._expires - RENEW_BEFORE, began + RENEW_AGAIN), self._expires)

    async def _obtain(self) -> Token:
        login = self._login
        match login:
            case GcpMetadata():
                token = await self._by_metadata(login.host)
            case GcpKey():
                token = await self._by_key(login.document, "the Secret's key")
            case GcpKeyFile():
                token = await self._by_key(await self._read(login.file), str(login.file))
            case GcpFederation():
                document = await self._read(login.file)
                return await self._by_federation(document, str(login.file), login.impersonate)
            case GcpCredentialsFile():
                document = await self._read(login.file)
                if credentials.is_federation(document):
                    return await self._by_federation(document, str(login.file), login.impersonate)
                token = await self._by_key(document, str(login.file))
            case _:
                assert_never(login)
        return token if login.impersonate is None else await self._impersonated(token, login.impersonate)

    async def _read(self, file: Path) -> bytes:
        return await self._requests.in_thread(lambda: credentials.read_file(file, what="the credentials file"))

    async def _by_metadata(self, host: str) -> Token:
        outcome = await self._requests.attempt(_METADATA, lambda: exchange.by_metadata(host))
        if isinstance(outcome, Token):
            return outcome
        if not outcome.answered:
            raise RetryableError(
                Reason.CREDENTIALS_UNAVAILABLE,
                f"no metadata server answers at {foreign(host)} ({outcome.code}); outside of Google Cloud, name a "
                "credential configuration in GOOGLE_APPLICATION_CREDENTIALS, or set authType: JsonCredentials",
            )
        mend = "bind the controller's service account to one of Google's: workload identity of the cluster"
        raise self._refused(outcome, f"the metadata server {host}", mend)

    async def _by_key(self, document: bytes, where: str) -> Token:
        key = await self._requests.in_thread(lambda: credentials.read_key(document, where=foreign(where)))
        universe, roots = self._endpoints.universe, self._endpoints.roots
        if universe != GOOGLE:
            return await self._requests.in_thread(lambda: exchange.self_signed(key))
        url = _TOKEN_URL if self._endpoints.token_url is None else check_url(self._endpoints.token_url)
        outcome = await self._requests.attempt(_KEY, lambda: exchange.by_key(key, url=url, roots=roots))
        if isinstance(outcome, Token):
            return outcome
        mend = "the key was deleted, its account is disabled, or this machine's clock is wrong: make a new key"
        raise self._refused(outcome, f"the token endpoint for key …{key.key_id[-6:]} of {key.email}", mend)

    async def _by_federation(self, document: bytes, where: str, impersonate: str | None) -> Token:
        federation = credentials.read_federation(document, where=foreign(where))
        subject = await self._requests.in_thread(lambda: credentials.read_subject_token(federation))
        roots = self._endpoints.roots
        outcome = await self._requests.attempt(_FEDERATION, lambda: exchange.by_federation(federation, subject, roots))
        if isinstance(outcome, GcpRefusal):
            if not outcome.passing and credentials.has_expired(subject):
                # The kubelet replaces the file long before that; it does so again when it catches up.
                message = f"the token in {foreign(federation.token_file)} has expired; check the kubelet and the clock"
                raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
            mend = (
                f"{foreign(federation.audience)} must be a workload identity provider that knows the cluster's issuer, "
                f"and the token in {foreign(federation.token_file)} must have its audience"
            )
            raise self._refused(outcome, "the security token service", mend)
        if impersonate is not None:
            return await self._impersonated(outcome, impersonate)
        if federation.impersonation_url is None:
            return outcome
        return await self._generated(outcome, federation.impersonation_url, "the configuration's service account")

    async def _impersonated(self, token: Token, email: str) -> Token:
        base = self._endpoints.iamcredentials
        base = f"https://iamcredentials.{self._endpoints.universe}" if base is None else check_url(base)
        return await self._generated(token, f"{base}/v1/projects/-/serviceAccounts/{email}:generateAccessToken", email)

    async def _generated(self, token: Token, url: str, whose: str) -> Token:
        roots = self._endpoints.roots
        outcome = await self._requests.attempt(_IMPERSONATION, lambda: exchange.by_impersonation(url, token, roots))
        if isinstance(outcome, Token):
            return outcome
        mend = (
            f"grant roles/iam.serviceAccountTokenCreator on {foreign(whose)} to the controller's own identity, and "
            "enable the IAM Service Account Credentials API"
        )
        raise self._refused(outcome, f"IAM Credentials for {whose}", mend)

    def _refused(self, refusal: GcpRefusal, step: str, mend: str) -> ControllerError:
        return told_of_login(refusal, step=step, login=self._login.title, mend=mend)
