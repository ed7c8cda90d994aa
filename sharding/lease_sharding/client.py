"""The API server's Leases over aiohttp: plain JSON, short time-outs, no retries inside."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import aiohttp

from lease_sharding.errors import ApiError, Conflict, foreign
from lease_sharding.leases import API_VERSION, GROUP, Lease, format_lease, parse_lease
from lease_sharding.protocol import LeaseChange, LeaseList

WATCH_SECONDS: Final = 240
"""How long the API server keeps a watch open. Listings go on beside it, so that nothing hangs on a silent one."""
LONGEST_EVENT: Final = 2**20
"""Bytes of one line of a watch; a Lease has about 1,000, and somebody may hang annotations on it."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where the API server is, and how to log in to it.

    Attributes:
        url: its address, without a trailing slash.
        tls: None for the system's certificates, or a plain http address.
        authorization: returns the Authorization header's value now, since service account tokens change; or None.
    """

    url: str
    tls: ssl.SSLContext | None = None
    authorization: Callable[[], str | None] = lambda: None


class HttpLeaseClient:
    """The Leases of one group; use it as an async context manager. It implements `LeaseClient`.

    It has a connection pool of its own: renewals must wait for nobody.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        namespace: str,
        group: str,
        request_timeout: float,
        user_agent: str = "lease-sharding",
    ) -> None:
        """Make a client.

        Args:
            server: the API server.
            namespace: where the Leases are.
            group: the label's value that they are listed by.
            request_timeout: seconds for a whole request.
            user_agent: what the API server's audit log shows.
        """
        self._server = server
        self._namespace = namespace
        self._path = f"/apis/{API_VERSION}/namespaces/{quote(namespace, safe='')}/leases"
        self._selector = f"{GROUP}={group}"
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls = self._server.tls
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=32),
            timeout=self._timeout,
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
            read_bufsize=LONGEST_EVENT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self) -> LeaseList:
        """Return the group's Leases; see `LeaseClient.list`."""
        body = await self._request("GET", f"{self._path}?{urlencode({'labelSelector': self._selector})}")
        version = (body.get("metadata") or {}).get("resourceVersion", "")
        return LeaseList([_lease(item) for item in body.get("items") or ()], version)

    async def get(self, name: str) -> Lease | None:
        """Return one Lease; see `LeaseClient.get`."""
        try:
            return _lease(await self._request("GET", self._url(name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, lease: Lease) -> Lease:
        """Create a Lease; see `LeaseClient.create`."""
        return _lease(await self._request("POST", self._path, format_lease(lease, namespace=self._namespace)))

    async def update(self, lease: Lease) -> Lease:
        """Replace a Lease; see `LeaseClient.update`."""
        body = format_lease(lease, namespace=self._namespace)
        try:
            return _lease(await self._request("PUT", self._url(lease.name), body))
        except ApiError as error:
            if error.status == 404:
                raise Conflict(404, error.args[0]) from error
            raise

    async def delete(self, lease: Lease) -> None:
        """Delete a Lease; see `LeaseClient.delete`."""
        preconditions = {"uid": lease.uid, "resourceVersion": lease.resource_version}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        try:
            await self._request("DELETE", self._url(lease.name), options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def watch(self, resource_version: str) -> AsyncGenerator[LeaseChange, None]:
        """Yield what changes after a listing; see `LeaseClient.watch`."""
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=WATCH_SECONDS + 10)
        session = self._opened()
        try:
            async with session.get(self._address(query), headers=self._headers(), timeout=timeout) as answer:
                if answer.status != 200:
                    raise _failure(answer.status, None, answer.reason)
                async for line in answer.content:
                    yield _change(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"the watch broke: {type(error).__name__}") from error

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        data = None if body is None else json.dumps(body)
        try:
            async with self._opened().request(
                method, self._server.url + path, data=data, headers=self._headers()
            ) as answer:
                content = await answer.json(content_type=None)
                if answer.status >= 400:
                    raise _failure(answer.status, content, answer.reason)
                return content if isinstance(content, Mapping) else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"the API server did not answer: {type(error).__name__}") from error

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use HttpLeaseClient as a context manager"
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if authorization := self._server.authorization():
            headers["Authorization"] = authorization
        return headers

    def _address(self, query: Mapping[str, str]) -> str:
        return f"{self._server.url}{self._path}?{urlencode(query)}"

    def _url(self, name: str) -> str:
        return f"{self._path}/{quote(name, safe='')}"


def _lease(body: Mapping[str, Any]) -> Lease:
    try:
        return parse_lease(body)
    except (KeyError, TypeError, AttributeError) as error:
        raise ApiError(0, "the API server's answer is no Lease") from error


def _change(event: Mapping[str, Any]) -> LeaseChange:
    kind, body = event.get("type"), event.get("object") or {}
    if kind not in ("ADDED", "MODIFIED", "DELETED"):  # ERROR, with a Status: most often 410, too old a version.
        raise _failure(body.get("code") or 0, body, kind)
    return LeaseChange(_lease(body), deleted=kind == "DELETED")


def _failure(status: int, content: object, reason: object) -> ApiError:
    told = content.get("message") if isinstance(content, Mapping) else None
    kind = Conflict if status == 409 else ApiError
    return kind(status, foreign(told or reason))
