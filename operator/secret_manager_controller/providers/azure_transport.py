"""HTTP below both of Azure's SDKs: bounded in time, and with nothing of its surroundings."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.exceptions import ServiceRequestTimeoutError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from secret_manager_controller.providers.calls import REQUEST_TIMEOUT
from secret_manager_controller.providers.threads import THREADS

CONNECT_TIMEOUT = 2.0  # Seconds; a connection within a region takes milliseconds.
READ_TIMEOUT = REQUEST_TIMEOUT - CONNECT_TIMEOUT
"""Seconds; Key Vault answers in 10 to 100 ms, Entra in up to half a second."""
USER_AGENT = "secret-manager-controller"
REQUEST_ID = "x-ms-request-id"  # Every answer of Azure has it.


class NotFromAzureError(ServiceResponseError):
    """Something between us and Azure answered in its stead."""


class Transport(RequestsTransport):  # type: ignore[misc]  # Its package finds it by name only.
    """Sends requests; several threads may at a time.

    No variable and no file is read, no cookie kept, no redirection followed. What the SDKs would tell of the machine
    in headers is left out.

    Args:
        proxy: the URL of a proxy, or None.
        no_proxy: hosts that are reached without it.
        ca_file: certificates to trust instead of the usual ones.
    """

    def __init__(self, *, proxy: str | None, ca_file: Path | None, no_proxy: str = "") -> None:
        session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        session.adapters.clear()  # Without TLS nothing is sent.
        session.mount("https://", _PromptAdapter(pool_maxsize=THREADS, max_retries=0))
        super().__init__(
            session=session,
            session_owner=False,  # The SDKs' clients come and go; the connections stay.
            connection_verify=True if ca_file is None else str(ca_file),
        )
        self._proxies = {} if proxy is None else {"https": proxy}
        self._no_proxy = tuple(part.strip().lstrip(".").lower() for part in no_proxy.split(",") if part.strip(" ."))
        self._thread = _Thread()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let all requests that this thread makes meanwhile end in so many seconds.

        An SDK may make two for one: a vault's challenge comes first, as do an authority's addresses.
        """
        self._thread.ends, self._thread.heard = time.monotonic() + seconds, None
        try:
            yield
        finally:
            self._thread.ends = math.inf

    @property
    def heard(self) -> Any:
        """The last answer that this thread got `within` its time, whatever the SDK made of it; or None."""
        return self._thread.heard

    @property
    def heard_at(self) -> float | None:
        """When that answer was given, by the clock of whoever gave it, in whole seconds since the epoch."""
        try:
            return parsedate_to_datetime(self._thread.heard.headers["Date"]).timestamp()
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def send(self, request: Any, **options: Any) -> Any:
        """Send one request; see `RequestsTransport.send`."""
        left = self._thread.ends - time.monotonic()
        if left <= 0.0:
            raise ServiceRequestTimeoutError("the time for this request is over")
        for header in [name for name in request.headers if name.lower().startswith("x-client-")]:
            del request.headers[header]
        request.headers["User-Agent"] = USER_AGENT
        options |= {
            "proxies": {} if self._direct(request.url) else self._proxies,
            "connection_timeout": min(CONNECT_TIMEOUT, left),
            "read_timeout": min(READ_TIMEOUT, left),
        }
        response = super().send(request, **options)
        if REQUEST_ID not in response.headers:
            raise NotFromAzureError("the answer is not Azure's")
        self._thread.heard = response
        return response

    def disconnect(self) -> None:
        """Close all connections."""
        self.session.close()

    def _direct(self, url: str) -> bool:
        # A private endpoint of a vault is inside the network, and Entra ID outside of it.
        host = urlsplit(url).hostname or ""
        return any(part in {"*", host} or host.endswith(f".{part}") for part in self._no_proxy)


class _PromptAdapter(HTTPAdapter):
    """Sends small packets at once through a proxy too: urllib3 would let each write wait 40 ms there."""

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the manager of a proxy's connections; see `HTTPAdapter.proxy_manager_for`."""
        return super().proxy_manager_for(proxy, socket_options=HTTPConnection.default_socket_options, **options)


class _Thread(threading.local):
    ends = math.inf
    heard: Any = None
