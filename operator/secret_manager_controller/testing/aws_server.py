"""The HTTP side of the AWS test server: Secrets Manager by moto, STS, faults, the call log and the control endpoint."""

from __future__ import annotations

import base64
import io
import json
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from secret_manager_controller.testing import aws_store
from secret_manager_controller.testing.aws_auth import Login, Logins, check_role
from secret_manager_controller.testing.aws_limits import AwsError, check_limits
from secret_manager_controller.testing.calls import OK, Call
from secret_manager_controller.testing.faults import Fault, Faults
from secret_manager_controller.testing.servers import CONTROL

CALLS_KEPT = 200_000  # A long demo makes tens of thousands; older ones are forgotten.
ASSUME_BY_TOKEN = "AssumeRoleWithWebIdentity"
ASSUME = frozenset({ASSUME_BY_TOKEN, "AssumeRole"})

_JSON = "application/x-amz-json-1.1"
_ASSUMED = (
    '<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
    "<{operation}Result><Credentials><AccessKeyId>{key}</AccessKeyId>"
    "<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration>"
    "</Credentials></{operation}Result></{operation}Response>"
)
_STS_ERROR = (
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>{code}</Code>'
    "<Message>{message}</Message></Error></ErrorResponse>"
)

StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(slots=True)
class Request:
    """One request, taken apart."""

    environ: dict[str, Any]
    body: bytes
    operation: str
    parameters: Mapping[str, Any]
    names: tuple[str, ...]
    at: float = field(default_factory=time.time)
    who: str = "-"

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Request:
        """Read the body and find out which operation on which secrets it asks for."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        parameters: dict[str, Any] = json.loads(body or b"{}") if target else dict(parse_qsl(body.decode()))
        named = [parameters.get("Name"), parameters.get("SecretId"), *parameters.get("SecretIdList", [])]
        operation = target.rpartition(".")[2] or str(parameters.get("Action", "-"))
        return cls(environ, body, operation, parameters, tuple(str(name) for name in named if name))

    @property
    def headers(self) -> dict[str, str]:
        """The headers, names in lower case."""
        found = {k[5:].replace("_", "-").lower(): v for k, v in self.environ.items() if k.startswith("HTTP_")}
        plain = {"content-type": self.environ.get("CONTENT_TYPE", ""), "content-length": str(len(self.body))}
        return {**plain, **found}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; status 0 breaks the connection."""

    status: int
    body: bytes
    code: str = OK
    committed: bool = True
    kind: str = _JSON
    retry_after: float | None = None


class AwsApplication:
    """A WSGI application that stands in for AWS Secrets Manager and STS."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.logins = Logins()
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.backends = aws_store.install()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._numbered = 0
        self._controls = Controls(self)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or note and drop it."""
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            answer = self._controls.answer(path.removeprefix(CONTROL), json.loads(body or b"{}"))
        else:
            request = Request.of(environ)
            answer = self._serve(request)
            self._note(request, answer)
        if answer.status == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        headers = [("Content-Type", answer.kind), ("Content-Length", str(len(answer.body)))]
        headers.append(("x-amzn-RequestId", secrets.token_hex(16)))
        if answer.retry_after is not None:
            headers.append(("Retry-After", f"{answer.retry_after:g}"))
        start_response(f"{answer.status} -", headers)
        return [answer.body]

    def region(self, name: str) -> aws_store.MendedBackend:
        """Return the store of one region."""
        backend: aws_store.MendedBackend = self.backends[DEFAULT_ACCOUNT_ID][name]
        return backend

    def reset(self) -> None:
        """Forget secrets, faults and calls; logins stay."""
        with self.lock:
            self.backends[DEFAULT_ACCOUNT_ID].reset()
            self.faults.clear()
            self.calls.clear()

    def _serve(self, request: Request) -> Answer:
        with self.lock:
            fault = self.faults.take(request.operation, request.names)
        if fault is not None and fault.seconds:
            time.sleep(fault.seconds)
        try:
            if request.operation != ASSUME_BY_TOKEN:
                request.who = self.logins.claimed(request.headers)
                self.logins.authenticate(
                    method=request.environ["REQUEST_METHOD"],
                    path=request.environ["PATH_INFO"],
                    headers=request.headers,
                    body=request.body,
                )
            if fault is None or fault.code is None:
                return self._carry_out(request)
            committed = fault.commit and self._carry_out(request).code == OK
            return _error(
                request,
                AwsError(fault.code, "A fault that the test asked for.", status=fault.status),
                committed=committed,
                retry_after=fault.retry_after,
            )
        except AwsError as error:
            return _error(request, error)

    def _carry_out(self, request: Request) -> Answer:
        if request.operation in ASSUME:
            return self._assume(request)
        check_limits(request.operation, request.parameters)
        environ = {**request.environ, "wsgi.input": io.BytesIO(request.body)}
        with self.lock:
            chunks, status, _ = run_wsgi_app(self._moto, environ, buffered=True)
        body, number = b"".join(chunks), int(status.split()[0])
        if number < 400:
            return Answer(number, body)
        # The service answers 400 where moto says 404.
        error = json.loads(body)
        return _error(request, AwsError(error["__type"], error.get("message", ""), status=400 if number < 500 else 500))

    def _assume(self, request: Request) -> Answer:
        request.who = check_role(request.parameters, by_token=request.operation == ASSUME_BY_TOKEN)
        expires = time.time() + int(request.parameters.get("DurationSeconds", "3600"))
        login = Login(
            access_key_id=f"ASIA{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_hex(20),
            who=request.who,
            session_token=secrets.token_hex(64),
            expires=expires,
        )
        with self.lock:
            self.logins.add(login)
        text = _ASSUMED.format(
            operation=request.operation,
            key=login.access_key_id,
            secret=login.secret_access_key,
            token=login.session_token,
            expires=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
        )
        return Answer(200, text.encode(), kind="text/xml")

    def _note(self, request: Request, answer: Answer) -> None:
        with self.lock:
            self._numbered += 1
            self.calls.append(
                Call(
                    number=self._numbered,
                    at=request.at,
                    who=request.who,
                    operation=request.operation,
                    names=request.names,
                    code=answer.code,
                    committed=answer.committed,
                    seconds=max(time.time() - request.at, 0.0),
                )
            )


class Controls:
    """What a test may do to the server from outside: `POST /_control/<method>` with its arguments as a JSON object."""

    def __init__(self, application: AwsApplication) -> None:
        self._application = application

    def answer(self, action: str, arguments: Mapping[str, Any]) -> Answer:
        """Carry out one of the methods below."""
        method = getattr(self, action, None)
        if action.startswith("_") or action == "answer" or method is None:
            return Answer(404, b'"there is no such control"', kind="application/json")
        with self._application.lock:
            result = method(**arguments)
        return Answer(200, json.dumps(result).encode(), kind="application/json")

    def calls(self) -> list[dict[str, Any]]:
        """Return the call log."""
        return [asdict(call) for call in self._application.calls]

    def clear_calls(self) -> None:
        """Empty the call log."""
        self._application.calls.clear()

    def reset(self) -> None:
        """Forget secrets, faults and calls."""
        self._application.reset()

    def fault(self, **fault: Any) -> None:
        """Let something go wrong; see `Fault`."""
        self._application.faults.add(Fault(**fault))

    def faults_left(self) -> int:
        """Return how many requests are still to be met by a fault."""
        return self._application.faults.left()

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._application.faults.clear()

    def stale_listing(self, *, on: bool, region: str) -> None:
        """Freeze or thaw what ListSecrets shows."""
        self._application.region(region).freeze_listing(stale=on)

    def unreadable(self, *, name: str, code: str, region: str) -> None:
        """Refuse a secret's value with an error code."""
        self._application.region(region).unreadable[name] = code

    def short_pages(self, *, size: int, region: str) -> None:
        """Answer with shorter pages than asked for."""
        self._application.region(region).short_page = size

    def add_access_key(self, *, access_key_id: str, secret_access_key: str) -> None:
        """Let an access key in."""
        self._application.logins.add(Login(access_key_id, secret_access_key, who=access_key_id))

    def remove_access_key(self, *, access_key_id: str) -> None:
        """Refuse an access key from now on."""
        self._application.logins.remove(access_key_id)

    def expire_sessions(self) -> None:
        """Let every assumed role's keys have expired."""
        self._application.logins.expire_sessions()

    def secrets(self, *, region: str) -> dict[str, Any]:
        """Return every secret with its current value, labels, tags and whether its deletion is scheduled."""
        return {
            secret.name: {
                "value": _exposed(aws_store.current_value(secret)),
                "versions": {name: version["version_stages"] for name, version in secret.versions.items()},
                "tags": {tag["Key"]: tag["Value"] for tag in secret.tags or []},
                "deleted": secret.is_deleted(),
            }
            for secret in self._application.region(region).secrets.values()
        }

    def history(self, *, region: str) -> dict[str, list[str | None]]:
        """Return the values of each secret's versions, oldest first."""
        return {
            secret.name: [_exposed(version) for version in secret.versions.values()]
            for secret in self._application.region(region).secrets.values()
        }

    def put_by_hand(self, *, name: str, value: str, text: bool, tags: dict[str, str], region: str) -> str:
        """Write a value (base64) as a person would, with tags where the secret is new; return its version."""
        data = base64.b64decode(value).decode() if text else value
        kind = "secret_string" if text else "secret_binary"
        labels = [{"Key": key, "Value": tag} for key, tag in tags.items()]
        return self._application.region(region).put_by_hand(name, kind, data, labels)

    def create_empty(self, *, name: str, tags: dict[str, str], region: str) -> None:
        """Create a secret without a version."""
        self._application.region(region).create_secret(
            name=name,
            secret_string=None,
            secret_binary=None,
            description="",
            tags=[{"Key": key, "Value": tag} for key, tag in tags.items()],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )

    def schedule_deletion(self, *, name: str, region: str) -> None:
        """Schedule a secret's deletion."""
        self._application.region(region).delete_secret(name, 30, force_delete_without_recovery=False)

    def destroy(self, *, name: str, region: str) -> None:
        """Delete a secret at once."""
        self._application.region(region).delete_secret(name, None, force_delete_without_recovery=True)


class _Handler(WSGIRequestHandler):  # type: ignore[misc]  # werkzeug is untyped to us.
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name.
        """Stay silent: the call log is the log."""


def make(application: AwsApplication, *, port: int) -> BaseWSGIServer:
    """Return a server bound to loopback; port 0 takes a free one."""
    return make_server("127.0.0.1", port, application, threaded=True, request_handler=_Handler)


def _error(request: Request, error: AwsError, *, committed: bool = False, retry_after: float | None = None) -> Answer:
    if request.operation in ASSUME:
        text = _STS_ERROR.format(code=escape(error.code), message=escape(error.message))
        return Answer(error.status, text.encode(), error.code, committed, "text/xml", retry_after)
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return Answer(error.status, body, error.code, committed, retry_after=retry_after)


def _exposed(version: Mapping[str, Any] | None) -> str | None:
    """Return a version's value in base64, which is how it stores a binary one."""
    if version is None:
        return None
    if "secret_binary" in version:
        return str(version["secret_binary"])
    return base64.b64encode(version["secret_string"].encode()).decode()
