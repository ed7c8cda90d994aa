"""What requests are signed with: access keys as they are, and the keys of a role, exchanged anew before they expire."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from secret_manager_controller.errors import ControllerError, Reason, RetryableError, foreign
from secret_manager_controller.providers import aws_clients
from secret_manager_controller.providers.aws_calls import Client, Requests
from secret_manager_controller.providers.aws_errors import Refusal, told_of_assumption, told_of_role
from secret_manager_controller.providers.aws_login import (
    AwsAccessKeys,
    AwsAssumedRole,
    AwsEndpoints,
    AwsLogin,
    AwsWebIdentity,
)

SESSION_LIFETIME = 3600  # Seconds; every role allows that much, more is a setting of the role.
RENEW_BEFORE = 600.0  # Seconds before the end; an outage of STS shorter than that goes unnoticed.
RENEW_AGAIN = 60.0  # Seconds until the next attempt while the old keys still hold.

_log = logging.getLogger(__name__)


class LoginKeys:
    """The keys of one login; a role's are exchanged anew before they expire.

    Args:
        login: access keys, or a role and what it is assumed with.
        region: whose STS is asked.
        endpoints: where STS is.
        requests: makes the requests to STS.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        login: AwsLogin,
        *,
        region: str,
        endpoints: AwsEndpoints,
        requests: Requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._region = region
        self._endpoints = endpoints
        self._requests = requests
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: AwsAccessKeys | None = None
        self._renew_at = self._expires = -math.inf

    async def current(self) -> AwsAccessKeys:
        """Return the keys; concurrent callers wait for one login.

        Raises:
            RetryableError: StoreUnavailable, RateLimited or CredentialsUnavailable.
            PermanentError: CredentialsUnavailable, StoreAccessDenied or StoreRefused.
        """
        if isinstance(self._login, AwsAccessKeys):
            return self._login
        if self._clock() >= self._renew_at:
            async with self._lock:
                if self._clock() >= self._renew_at:
                    await self._renew(self._login)
        assert self._keys is not None  # They were renewed, or still hold.
        return self._keys

    async def after(self, expired: AwsAccessKeys) -> AwsAccessKeys | None:
        """Return keys to use instead of those that AWS calls expired, or None where a login has no others."""
        if isinstance(self._login, AwsAccessKeys):
            return None
        async with self._lock:
            if self._keys is expired:
                self._expires = -math.inf
                await self._renew(self._login)
        return self._keys

    async def _renew(self, login: AwsWebIdentity | AwsAssumedRole) -> None:
        began = self._clock()
        try:
            self._keys = await self._exchange(login)
        except ControllerError as error:
            if self._clock() >= self._expires:
                raise
            self._renew_at = self._clock() + RENEW_AGAIN
            _log.warning("the AWS role's keys could not be renewed; they still hold", extra={"reason": error.reason})
            return
        self._expires = began + SESSION_LIFETIME
        self._renew_at = self._expires - RENEW_BEFORE

    async def _exchange(self, login: AwsWebIdentity | AwsAssumedRole) -> AwsAccessKeys:
        role = {"RoleArn": login.role_arn, "RoleSessionName": login.session_name, "DurationSeconds": SESSION_LIFETIME}
        if isinstance(login, AwsAssumedRole):
            outcome = await self._ask("AssumeRole", role, login.keys)
            if isinstance(outcome, Refusal):
                raise told_of_assumption(outcome, role=login.role_arn, keys=login.keys.title)
        else:
            token = await self._token(login)
            outcome = await self._ask("AssumeRoleWithWebIdentity", role | {"WebIdentityToken": token}, None)
            if isinstance(outcome, Refusal):
                raise told_of_role(outcome, role=login.role_arn, token_file=str(login.token_file))
        keys = outcome["Credentials"]
        return AwsAccessKeys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])

    async def _ask(
        self, operation: str, parameters: Mapping[str, Any], keys: AwsAccessKeys | None
    ) -> Mapping[str, Any] | Refusal:
        def client() -> Client:
            return aws_clients.SHARED_CLIENTS.of("sts", region=self._region, endpoint_url=self._endpoints.sts)

        return await self._requests.make(client, operation, parameters, keys=keys)

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
