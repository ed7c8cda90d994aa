"""The HTTP side of the Azure test server: TLS, the proxy, the vaults, Entra, faults, the call log and the controls."""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from secret_manager_controller.testing.azure_entra import Entra, EntraError
from secret_manager_controller.testing.azure_keys import Keys, asked_of_key
from secret_manager_controller.testing.azure_quotas import Throttle
from secret_manager_controller.testing.azure_vault import Vault, VaultError
from secret_manager_controller.testing.calls import OK, Call
from secret_manager_controller.testing.controls import Controls, Handler, Server
from secret_manager_controller.testing.faults import Fault, Faults

VAULT_SUFFIXES = ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn")
LOGIN_HOSTS = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
)
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
CALLS_KEPT = 200_000  # A long demo makes tens of thousands; older ones are forgotten.
CHALLENGE, TOKEN, DISCOVERY = "Challenge", "GetToken", "Discover"
"""How the call log names a request without a token, a request for one, and one for where to ask for one."""

_SECRET = re.compile(r"/secrets/(?P<name>[^/]*)(/(?P<version>[^/]*))?/?")
_DELETED = re.compile(r"/deletedsecrets/(?P<name>[^/]+)(?P<recover>/recover)?/?")
_TOKEN_PATH = re.compile(r"/(?P<tenant>[^/]+)/oauth2/v2\.0/token")
_DISCOVERY_PATH = re.compile(r"/(?P<tenant>[^/]+)/v2\.0/\.well-known/openid-configuration")
_TLS_HANDSHAKE = b"\x16"  # The first byte of a TLS client.
_SECRET_OPERATIONS = {"GET": "GetSecret", "PUT": "SetSecret", "PATCH": "UpdateSecret", "DELETE": "DeleteSecret"}
_DELETED_OPERATIONS = {"GET": "GetDeletedSecret", "DELETE": "PurgeDeletedSecret", "POST": "RecoverDeletedSecret"}
_OUTER_CODES = {401: "Unauthorized", 403: "Forbidden", 404: "SecretNotFound", 409: "Conflict", 429: "Throttled"}


@dataclass(slots=True)
class Request:
    """One request, taken apart.

    Attributes:
        vault: the vault that it is for, or None where it is for Entra.
        url: where the host is, for addresses in the answer.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    vault: str | None
    url: str
    operation: str = "-"
    name: str | None = None
    version: str = ""
    at: float = 0.0
    who: str = "-"

    def __post_init__(self) -> None:
        """Find out which operation on which secret or key it asks for."""
        if self.vault is None:
            if _TOKEN_PATH.fullmatch(self.path):
                self.operation = TOKEN
            elif _DISCOVERY_PATH.fullmatch(self.path) or self.path == "/common/discovery/instance":
                self.operation = DISCOVERY
        elif self.path in {"/secrets", "/deletedsecrets"} and self.method == "GET":
            self.operation = "GetSecrets" if self.path == "/secrets" else "GetDeletedSecrets"
        elif (asked := asked_of_key(self.method, self.path)) is not None:
            self.operation, self.name, self.version = asked
        elif (match := _DELETED.fullmatch(self.path)) is not None:
            self.operation, self.name = _DELETED_OPERATIONS.get(self.method, "-"), unquote(match["name"])
        elif (match := _SECRET.fullmatch(self.path)) is not None:
            self.name, self.version = unquote(match["name"]), match["version"] or ""
            self.operation = _SECRET_OPERATIONS.get(self.method, "-")
            if self.version == "versions" and self.method == "GET":
                self.operation = "GetSecretVersions"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; status 0 breaks the connection."""

    status: int
    document: Any
    code: str = OK
    committed: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


class AzureApplication:
    """Vaults, one tenant, and what goes wrong with them."""

    def __init__(self, *, tenant: str, vault: str, clock: Callable[[], float] = time.time) -> None:
        self.lock = threading.RLock()
        self.offset = 0.0
        """Seconds that this server's clock is ahead."""
        self.stopped: float | None = None
        """When its clock was stopped, if it was."""
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.entra = Entra(tenant, self.now)
        self.vaults = {vault: Vault(vault, self.now)}
        self.keys: defaultdict[str, Keys] = defaultdict(Keys)
        self.throttle = Throttle(self.now)
        self._clock = clock
        self._numbered = 0

    def now(self) -> float:
        """Return this server's time."""
        return (self._clock() if self.stopped is None else self.stopped) + self.offset

    def stop_clock(self) -> None:
        """Let no time pass any more but what `offset` adds."""
        self.stopped = self._clock()

    def serve(self, request: Request) -> Answer:
        """Answer one request and note it."""
        request.at = time.time()
        authorization = request.headers.get("authorization", "")
        if request.vault is not None:
            if not authorization:
                request.operation = CHALLENGE
            request.who = self.entra.who(authorization)
        names = () if request.name is None else (request.name,)
        with self.lock:
            fault = self.faults.take(request.operation, names)
        if fault is not None and fault.seconds:
            time.sleep(fault.seconds)
        with self.lock:
            if fault is None or fault.code is None:
                answer = self._carry_out(request, authorization)
            else:
                committed = fault.commit and self._carry_out(request, authorization).code == OK
                answer = _failed(fault, request, committed=committed)
            self._numbered += 1
            noted = (self._numbered, request.at, request.who, request.operation, names, answer.code, answer.committed)
            self.calls.append(Call(*noted))
        return answer

    def _carry_out(self, request: Request, authorization: str) -> Answer:
        try:
            if request.vault is None:
                return Answer(200, self._login(request))
            vault = self.vaults[request.vault]
            # The suffix of the host is the resource that tokens must be for.
            resource = f"https://{request.url.removeprefix('https://').partition('.')[2].partition(':')[0]}"
            if request.url.removeprefix("https://").partition(":")[0] in LOOPBACK:
                resource = f"https://{VAULT_SUFFIXES[0]}"
            if not self.entra.accepts(authorization, resource=resource):
                return self._challenge(resource, given=bool(authorization))
            if (wait := self.throttle.refuse(vault.name, request.operation)) is not None:
                return _throttled(wait)
            document = _operate(vault, self.keys[vault.name], request)
            return Answer(HTTPStatus.NO_CONTENT if document is None else HTTPStatus.OK, document)
        except VaultError as error:
            body: dict[str, Any] = {"code": error.code, "message": error.message}
            if error.inner is not None:
                body["innererror"] = {"code": error.inner}
            return Answer(error.status, {"error": body}, error.inner or error.code, committed=False)
        except EntraError as error:
            return Answer(error.status, _oauth_error(error), error.code, committed=False)

    def _login(self, request: Request) -> dict[str, Any]:
        if (match := _TOKEN_PATH.fullmatch(request.path)) is not None:
            form = dict(parse_qsl(request.body.decode()))
            request.who = form.get("client_id", "-")
            return self.entra.token(match["tenant"], form)
        if (match := _DISCOVERY_PATH.fullmatch(request.path)) is not None:
            base = f"{request.url.removesuffix(':443')}/{match['tenant']}"  # Clients compare the issuer with its host.
            return {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        if request.operation == DISCOVERY:
            return {
                "tenant_discovery_endpoint": f"{request.url}/{self.entra.tenant}/v2.0/.well-known/openid-configuration",
                "metadata": [],
            }
        raise EntraError(404, "invalid_request", 900144, "There is nothing here.")

    def _challenge(self, resource: str, *, given: bool) -> Answer:
        header = f'Bearer authorization="https://{LOGIN_HOSTS[0]}/{self.entra.tenant}", resource="{resource}"'
        message = "AKV10000: Request is missing a Bearer or PoP token."
        if given:
            header += ', error="invalid_token"'
            message = "AKV10012: The token is expired, unknown, or meant for somebody else."
        document = {"error": {"code": "Unauthorized", "message": message}}
        return Answer(401, document, "Unauthorized", committed=False, headers={"WWW-Authenticate": header})


def _operate(vault: Vault, keys: Keys, request: Request) -> dict[str, Any] | None:
    """Let a vault do what a request asks for."""
    name, url, query = request.name or "", request.url, request.query
    match request.operation:
        case "GetSecrets":
            return vault.get_secrets(url, query)
        case "GetDeletedSecrets":
            return vault.get_all_deleted(url, query)
        case "GetSecretVersions":
            return vault.get_versions(url, name, query)
        case "GetSecret":
            return vault.get_secret(url, name, request.version)
        case "GetDeletedSecret":
            return vault.get_deleted(url, name)
        case "SetSecret":
            return vault.set_secret(url, name, json.loads(request.body))
        case "UpdateSecret":
            return vault.update_secret(url, name, request.version, json.loads(request.body))
        case "DeleteSecret":
            return vault.delete_secret(url, name)
        case "RecoverDeletedSecret":
            return vault.recover(url, name)
        case "Encrypt" | "Decrypt":
            return keys.operate(url, request.operation, name, request.version, json.loads(request.body))
        case "PurgeDeletedSecret":
            vault.purge(name)
            return None
    raise VaultError(404, "NotFound", "There is nothing here.")


def _throttled(wait: int) -> Answer:
    error = {"code": "Throttled", "message": "Request was not processed because too many requests were received."}
    return Answer(429, {"error": error}, "Throttled", committed=False, headers={"Retry-After": str(wait)})


def _failed(fault: Fault, request: Request, *, committed: bool) -> Answer:
    """Answer as a fault says; Entra tells its codes in another form than a vault."""
    assert fault.code is not None  # The caller looked.
    later = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    message = "A fault that the test asked for."
    if request.vault is None:
        number = int(fault.code.removeprefix("AADSTS")) if fault.code.startswith("AADSTS") else 0
        document = _oauth_error(EntraError(fault.status, "invalid_client" if number else fault.code, number, message))
    else:
        outer = _OUTER_CODES.get(fault.status, fault.code)
        inner = {} if outer == fault.code else {"innererror": {"code": fault.code}}
        document = {"error": {"code": outer, "message": message, **inner}}
    return Answer(fault.status, document, fault.code, committed=committed, headers=later)


def _oauth_error(error: EntraError) -> dict[str, Any]:
    told = f"{error.code}: {error.message}" if error.number else error.message
    return {"error": error.error, "error_description": told, "error_codes": [error.number]}


def make(
    application: AzureApplication, controls: Controls[AzureApplication], tls: ssl.SSLContext, *, port: int
) -> Server:
    """Return a server bound to loopback; port 0 takes a free one.

    One port takes three kinds of clients. Those that speak TLS at once reach Entra and the vault that there was first.
    Those that ask for a tunnel (CONNECT) reach every host that Azure would have, under its real name. Without TLS there
    are the controls.

    Args:
        application: what answers.
        controls: what a test may do to it.
        tls: with a certificate for all of these hosts.
        port: on 127.0.0.1.
    """
    return Server(
        port, type("AzureHandler", (_Handler,), {"application": application, "controls": controls, "tls": tls})
    )


class _Handler(Handler):
    application: AzureApplication
    tls: ssl.SSLContext

    def setup(self) -> None:
        self._host: str | None = None
        first = self.request.recv(1, socket.MSG_PEEK)
        super().setup()
        if first == _TLS_HANDSHAKE:
            self._encrypt(f"127.0.0.1:{self.server.server_port}")  # type: ignore[attr-defined]  # Of every TCP server.

    def _tunnel(self) -> None:
        host = self.path.rpartition(":")[0]
        if self._vault_of(host) is None and host not in LOGIN_HOSTS:
            # As a proxy does that cannot resolve the name.
            self._send(502, "there is no such host", {})
            self.close_connection = True
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.wfile.flush()
        self._encrypt(host)
        self.close_connection = False

    def answer(self, body: bytes) -> None:
        if self._host is None:
            self._send(404, "only controls are served without TLS", {})
            return
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            vault=self._vault(parts.path),
            # The service names its port in links.
            url=f"https://{self._host}" if ":" in self._host else f"https://{self._host}:443",
        )
        answer = self.application.serve(request)
        if answer.status == 0:
            self.break_off()
            return
        self._send(answer.status, answer.document, answer.headers)

    do_CONNECT = _tunnel  # noqa: N815 - http.server's name.

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.connection.close()  # The server closes the socket below TLS only.

    def _encrypt(self, host: str) -> None:
        self._host = host
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", -1)

    def _vault(self, path: str) -> str | None:
        """Return the vault that a request is for, or None where it is for Entra."""
        assert self._host is not None  # The caller looked.
        if self._host.partition(":")[0] in LOOPBACK:
            first = next(iter(self.application.vaults))
            return first if path.startswith(("/secrets", "/deletedsecrets", "/keys")) else None
        return self._vault_of(self._host)

    def _vault_of(self, host: str) -> str | None:
        name, _, suffix = host.lower().partition(".")
        return name if suffix in VAULT_SUFFIXES and name in self.application.vaults else None

    def _send(self, status: int, document: Any, headers: Mapping[str, str]) -> None:
        body = b"" if status == HTTPStatus.NO_CONTENT else json.dumps(document).encode()
        identified = {"x-ms-request-id": secrets.token_hex(16), **headers}
        self.send(status, body, kind="application/json; charset=utf-8", headers=identified)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return this server's time, which may be ahead."""
        return super().date_time_string(self.application.now() if timestamp is None else timestamp)
