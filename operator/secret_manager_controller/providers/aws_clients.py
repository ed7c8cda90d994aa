"""Clients of AWS that all logins share, made from nothing but what they are told.

A client costs 2 ms and 0.2 MB, its connections more, and a login is only what a request is signed with. So there is one
client for each service and region, and the login is told request by request.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.providers.aws_calls import CALLER, CONNECT_TIMEOUT, READ_TIMEOUT, Client
from secret_manager_controller.providers.threads import THREADS

CLIENTS = 64
"""Most clients kept; a region or an endpoint more closes the one that was not used for longest."""


class _CallersCredentials(Credentials):  # type: ignore[misc]  # botocore is untyped.
    """What botocore signs with: whatever the caller is at that moment."""

    def __init__(self) -> None:
        super().__init__(access_key="", secret_key="")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the caller's keys; a request without a caller is not signed."""
        keys = CALLER.keys
        if keys is None:
            raise NoCredentialsError
        return ReadOnlyCredentials(keys.access_key_id, keys.secret_access_key, keys.session_token)


class _CallersProvider(CredentialProvider):  # type: ignore[misc]  # botocore is untyped.
    METHOD = "caller"

    def load(self) -> Credentials:
        return _CallersCredentials()


class SharedClients:
    """Clients that take nothing from their surroundings: no variable, no file, no metadata service. Thread-safe."""

    def __init__(self) -> None:
        self._session: Any = None
        self._clients: OrderedDict[tuple[str, str, str | None], Client] = OrderedDict()
        self._lock = threading.Lock()  # A session does not make clients in several threads at once.

    def of(self, service: str, *, region: str, endpoint_url: str | None) -> Client:
        """Return the client of a service. This blocks, the first time for some 200 ms.

        Args:
            service: `secretsmanager` or `sts`.
            region: e.g. `eu-central-1`.
            endpoint_url: where the service is, or None for AWS's own address in the region.

        Raises:
            PermanentError: StoreRefused: the region or the address cannot be.
        """
        key = (service, region, endpoint_url)
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = self._make(service, region=region, endpoint_url=endpoint_url)
                if len(self._clients) > CLIENTS:
                    # Requests under way keep their connections until they end.
                    self._clients.popitem(last=False)[1].close()
            self._clients.move_to_end(key)
            return client

    def _make(self, service: str, *, region: str, endpoint_url: str | None) -> Client:
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=THREADS,
            retries={"total_max_attempts": 1, "mode": "standard"},  # Retries are ours: they look at the fence.
            proxies={},
            ignore_configured_endpoint_urls=True,
            parameter_validation=False,  # The service validates too, and botocore's messages quote parameters.
        )
        try:
            if self._session is None:
                self._session = _isolated_session()
            return self._session.create_client(
                service, region_name=region, endpoint_url=endpoint_url, verify=True, config=config
            )
        except (BotoCoreError, ValueError) as error:
            told = f"AWS has no region {foreign(repr(region))}, or its endpoint is no URL ({type(error).__name__})"
            raise PermanentError(Reason.STORE_REFUSED, told) from None


SHARED_CLIENTS = SharedClients()


def _isolated_session() -> Any:
    # botocore logs requests at DEBUG, parameters and so values included: it must not inherit that level.
    logging.getLogger("botocore").setLevel(logging.INFO)
    variables = {name: (None, None, *rest) for name, (_, _, *rest) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    for file in ("config_file", "credentials_file"):
        variables[file] = (None, None, os.devnull, None)
    session = botocore.session.Session(session_vars=variables)
    session.register_component("credential_provider", CredentialResolver([_CallersProvider()]))
    return session
