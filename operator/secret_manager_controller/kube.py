"""A small client of the API server: plain JSON over aiohttp, short time-outs, no retries inside.

`kubernetes` loads the credentials (kubeconfig, service account); the calls are ours, since its own client takes two to
five times the CPU per call and would not share the event loop.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from kubernetes import config as kubernetes_config
from kubernetes.client import Configuration

from secret_manager_controller.errors import foreign

REQUEST_TIMEOUT = 5.0
"""Seconds for a whole request: the API server answers in milliseconds or not at all."""
LIST_CHUNK = 500
"""Objects a page, as client-go's pager asks for."""
DEFAULT_KUBECONFIG = "~/.kube/config"
PROXY_SCHEMES = ("http://", "https://")
SOPS_SECRETS = ("sops-private-key", "sops-gpg-key", "gpg-key")
"""Secrets that hold SOPS keys by their name alone."""

Json = Mapping[str, Any]


class KubeError(Exception):
    """The API server refused a request or could not be reached.

    Attributes:
        status: the HTTP status, or 0 where there was no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class KubeConfigError(Exception):
    """There is no usable kubeconfig and no service account."""


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """Where a kind's objects live: `/apis/{group}/{version}` or `/api/v1`, and the plural."""

    group: str
    version: str
    plural: str

    def url(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of one object, or of a namespace's or the cluster's objects."""
        parts = ["/api/v1" if not self.group else f"/apis/{self.group}/{self.version}"]
        parts += [f"namespaces/{namespace}"] if namespace is not None else []
        parts += [self.plural, *([name] if name is not None else []), *([subresource] if subresource else [])]
        return "/".join(parts)


SECRET_MANAGER_CONFIGS = ResourcePath("secret-management.microscaler.io", "v1", "secretmanagerconfigs")
SECRET_MANAGER_POLICIES = ResourcePath("secret-management.microscaler.io", "v1", "secretmanagerpolicies")
GIT_REPOSITORIES = ResourcePath("source.toolkit.fluxcd.io", "v1", "gitrepositories")
SECRETS = ResourcePath("", "v1", "secrets")
NAMESPACES = ResourcePath("", "v1", "namespaces")
EVENTS = ResourcePath("", "v1", "events")
LEASES = ResourcePath("coordination.k8s.io", "v1", "leases")
LEASE_GROUP = "secret-manager-controller"
"""What the names of the replicas' Leases begin with, and the label's value that they are listed by."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The address of an API server and how to log in to it.

    Attributes:
        configuration: as `kubernetes` loaded it; it renews service account tokens when asked.
    """

    configuration: Configuration

    @classmethod
    def load(cls, *, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Load the kubeconfig if there is one, else the service account of a pod.

        Args:
            kubeconfig: the file, or several as in `KUBECONFIG`, which is the default, and then `~/.kube/config`.
            context: the kubeconfig's context; its current one by default.

        Raises:
            KubeConfigError: neither is there or usable.
        """
        files = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
        found = any(Path(file).expanduser().is_file() for file in files.split(os.pathsep))
        configuration = Configuration(proxy="")  # With None, it would take the proxy that the stores are reached by.
        if not found and (kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ):
            raise KubeConfigError(f"there is no kubeconfig at {foreign(files)}")
        try:
            # Not `load_config`: inside a cluster it prints to stdout, and it takes several files for none.
            if found:
                kubernetes_config.load_kube_config(files, context, client_configuration=configuration)
            else:
                kubernetes_config.load_incluster_config(client_configuration=configuration)
        except Exception as error:  # A malformed kubeconfig raises whatever its reader stumbles over.
            what = f"kubeconfig {foreign(files)}" if found else "service account"
            raise KubeConfigError(f"the {what} is not usable: {foreign(error)}") from error
        server = cls(configuration)
        if server.proxy and not server.proxy.startswith(PROXY_SCHEMES):
            raise KubeConfigError(
                f"the proxy-url of kubeconfig {foreign(files)} is {foreign(server.proxy)!r}; only http:// and https:// "
                "proxies can be used"
            )
        return server

    @property
    def proxy(self) -> str | None:
        """The kubeconfig's `proxy-url`, if there is one."""
        return str(self.configuration.proxy) if self.configuration.proxy else None

    @property
    def server_name(self) -> str | None:
        """The kubeconfig's `tls-server-name`: what the certificate is for, where that is not the address."""
        return str(self.configuration.tls_server_name) if self.configuration.tls_server_name else None

    @property
    def url(self) -> str:
        """The base address, without a trailing slash."""
        return str(self.configuration.host).rstrip("/")

    def authorization(self) -> str | None:
        """Return the Authorization header's value now: service account tokens change while we run."""
        value = self.configuration.get_api_key_with_prefix("BearerToken", "authorization")
        if not value and self.configuration.username:  # Without one, it would make a login of nothing.
            value = self.configuration.get_basic_auth_token()
        return str(value) if value else None

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings, or None for a plain http address."""
        if not self.url.startswith("https://"):
            return None
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert)
        if not self.configuration.verify_ssl:  # The kubeconfig says insecure-skip-tls-verify.
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.configuration.cert_file:
            context.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        return context


class KubeClient:
    """One connection pool to the API server; use it as an async context manager."""

    def __init__(self, server: ApiServer, *, user_agent: str) -> None:
        self._server = server
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        tls = self._server.tls()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=64),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Json | None:
        """Return one object, or None if there is none."""
        return await self._request("GET", path, absent_ok=True)

    async def create(self, path: str, body: Json) -> Json:
        """Create an object; `KubeError` 409 if it exists."""
        return await self._request("POST", path, body=body) or {}

    async def merge_patch(self, path: str, body: Json) -> Json:
        """Merge-patch an object (RFC 7386); with a resourceVersion in it, `KubeError` 409 on a stale one."""
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json") or {}

    async def delete(self, path: str, *, uid: str, resource_version: str) -> None:
        """Delete an object as it was read; `KubeError` 409 if it has changed since. One that is gone is fine."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._request("DELETE", path, body=options, absent_ok=True)

    async def list_metadata(self, resource: ResourcePath) -> AsyncIterator[Json]:
        """Yield the metadata of every object of a kind in the cluster, page by page."""
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        async for item in self._pages(resource, accept=accept):
            yield item["metadata"]

    async def list_objects(self, resource: ResourcePath) -> AsyncIterator[Json]:
        """Yield every object of a kind in the cluster, page by page."""
        async for item in self._pages(resource, accept="application/json"):
            yield item

    async def _pages(self, resource: ResourcePath, *, accept: str) -> AsyncIterator[Json]:
        token = ""
        while True:
            query = f"?limit={LIST_CHUNK}" + (f"&continue={token}" if token else "")
            page = await self._request("GET", resource.url() + query, accept=accept) or {}
            for item in page.get("items") or ():  # Go writes no list as null.
                yield item
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        absent_ok: bool = False,
    ) -> Json | None:
        assert self._session is not None, "use KubeClient as a context manager"
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        if authorization := self._server.authorization():
            headers["Authorization"] = authorization
        data = None if body is None else json.dumps(body)
        try:
            async with self._session.request(
                method,
                self._server.url + path,
                data=data,
                headers=headers,
                proxy=self._server.proxy,
                server_hostname=self._server.server_name,
            ) as answer:
                if answer.status == 404 and absent_ok:
                    return None
                content = await _document(answer)
                if answer.status >= 400:
                    told = content.get("message") if isinstance(content, Mapping) else None
                    raise KubeError(answer.status, foreign(told or answer.reason))
                if not isinstance(content, Mapping):
                    raise KubeError(0, "the API server answered something that is no JSON object")
                return content
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(0, f"the API server did not answer: {type(error).__name__}") from error


async def _document(answer: aiohttp.ClientResponse) -> object:
    """Return an answer's JSON, or None for anything else: a kind that is not served is refused in plain text."""
    try:
        return json.loads(await answer.read() or b"{}")
    except ValueError:
        return None
