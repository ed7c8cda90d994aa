"""Clients of AWS: made from explicit logins only, and made anew before their keys expire."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import BotoCoreError

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.providers.aws_calls import CONNECT_TIMEOUT, READ_TIMEOUT, Client, Requests
from secret_manager_controller.providers.aws_errors import Refusal, told_of_role
from secret_manager_controller.providers.aws_login import AwsAccessKeys, AwsEndpoints, AwsLogin, AwsWebIdentity
from secret_manager_controller.providers.calls import THREADS

SESSION_LIFETIME = 3600  # Seconds; every role allows that much, more is a setting of the role.
RENEW_BEFORE = 600.0  # Seconds before the end; an outage of STS shorter than that goes unnoticed.
RENEW_AGAIN = 60.0  # Seconds until the next attempt while the old keys still hold.

_log = logging.getLogger(__name__)


class ClientFactory:
    """Makes clients that take nothing from their surroundings: no variable, no file, no metadata service.

    There is one for all logins: a botocore session costs 100 ms and 8 MB, another client of it 2 ms.
    """

    def __init__(self) -> None:
        self._session: Any = None
        self._lock = threading.Lock()  # A session does not make clients in several threads at once.

    def make(self, service: str, *, region: str, endpoint_url: str | None, keys: AwsAccessKeys | None) -> Client:
        """Return a client. This blocks, the first time for some 200 ms.

        Args:
            service: `secretsmanager` or `sts`.
            region: e.g. `eu-central-1`.
            endpoint_url: where the service is, or None for AWS's own address in the region.
            keys: what requests are signed with, or None for requests that are not.

        Raises:
            PermanentError: StoreRefused: the region or the address cannot be.
        """
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=THREADS,
            retries={"total_max_attempts": 1, "mode": "standard"},  # Retries are ours: they look at the fence.
            proxies={},
            ignore_configured_endpoint_urls=True,
            parameter_validation=False,  # The service validates too, and botocore's messages quote parameters.
            signature_version=None if keys else UNSIGNED,
        )
        try:
            with self._lock:
                if self._session is None:
                    self._session = _isolated_session()
                return self._session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=endpoint_url,
                    aws_access_key_id=keys and keys.access_key_id,
                    aws_secret_access_key=keys and keys.secret_access_key,
                    aws_session_token=keys and keys.session_token,
                    verify=True,
                    config=config,
                )
        except (BotoCoreError, ValueError) as error:
            told = f"AWS has no region {foreign(repr(region))}, or its endpoint is no URL ({type(error).__name__})"
            raise PermanentError(Reason.STORE_REFUSED, told) from None


SHARED_FACTORY = ClientFactory()


class LoginClients:
    """The Secrets Manager client of one login; a role's is made anew before its keys expire."""

    def __init__(
        self,
        login: AwsLogin,
        *,
        region: str,
        endpoints: AwsEndpoints,
        requests: Requests,
        factory: ClientFactory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._region = region
        self._endpoints = endpoints
        self._requests = requests
        self._factory = factory or SHARED_FACTORY
        self._clock = clock
        self._lock = asyncio.Lock()
        self._sts: Client | None = None
        self._client: Client | None = None
        self._retired: Client | None = None
        self._renew_at = self._expires = -math.inf

    async def current(self) -> Client:
        """Return the client; concurrent callers wait for one login.

        Raises:
            RetryableError: StoreUnavailable, RateLimited or CredentialsUnavailable.
            PermanentError: CredentialsUnavailable, StoreAccessDenied or StoreRefused.
        """
        if self._clock() >= self._renew_at:
            async with self._lock:
                if self._clock() >= self._renew_at:
                    await self._renew()
        return self._client

    async def after(self, expired: Client) -> Client | None:
        """Return a client to use instead of one whose keys AWS calls expired, or None where a login has no other."""
        if isinstance(self._login, AwsAccessKeys):
            return None
        async with self._lock:
            if self._client is expired:
                self._expires = -math.inf
                await self._renew()
        return self._client

    def close(self) -> None:
        """Close all connections."""
        for client in (self._sts, self._client, self._retired):
            if client is not None:
                client.close()
        self._sts = self._client = self._retired = None
        self._renew_at = -math.inf

    async def _renew(self) -> None:
        began = self._clock()
        try:
            keys = await self._keys()
        except ControllerError as error:
            if self._clock() >= self._expires:
                raise
            self._renew_at = self._clock() + RENEW_AGAIN
            _log.warning("the AWS role's keys could not be renewed; they still hold", extra={"reason": error.reason})
            return
        client = await self._make("secretsmanager", self._endpoints.secretsmanager, keys)
        if self._retired is not None:
            self._retired.close()
        # Requests that were begun with the old client may still be under way; it is closed at the next renewal.
        self._retired, self._client = self._client, client
        lifetime = SESSION_LIFETIME if isinstance(self._login, AwsWebIdentity) else math.inf
        self._expires = began + lifetime
        self._renew_at = self._expires - RENEW_BEFORE

    async def _keys(self) -> AwsAccessKeys:
        if isinstance(self._login, AwsAccessKeys):
            return self._login
        if self._sts is None:
            self._sts = await self._make("sts", self._endpoints.sts, None)
        role, token = self._login.role_arn, await self._token(self._login)
        outcome = await self._requests.make(
            self._sts,
            "AssumeRoleWithWebIdentity",
            {
                "RoleArn": role,
                "RoleSessionName": self._login.session_name,
                "WebIdentityToken": token,
                "DurationSeconds": SESSION_LIFETIME,
            },
        )
        if isinstance(outcome, Refusal):
            raise told_of_role(outcome, role=role, token_file=str(self._login.token_file))
        keys = outcome["Credentials"]
        return AwsAccessKeys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])

    async def _token(self, login: AwsWebIdentity) -> str:
        try:
            token = await self._requests.in_thread(login.token_file.read_text)
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(
                Reason.CREDENTIALS_UNAVAILABLE,
                f"the web identity token {foreign(login.token_file)} cannot be read ({type(error).__name__}); the pod "
                "needs a projected service account token with the audience sts.amazonaws.com",
            ) from None
        return token.strip()

    async def _make(self, service: str, endpoint_url: str | None, keys: AwsAccessKeys | None) -> Client:
        return await self._requests.in_thread(
            lambda: self._factory.make(service, region=self._region, endpoint_url=endpoint_url, keys=keys)
        )


def _isolated_session() -> Any:
    # botocore logs requests at DEBUG, parameters and so values included: it must not inherit that level.
    logging.getLogger("botocore").setLevel(logging.INFO)
    variables = {name: (None, None, *rest) for name, (_, _, *rest) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    for file in ("config_file", "credentials_file"):
        variables[file] = (None, None, os.devnull, None)
    return botocore.session.Session(session_vars=variables)
