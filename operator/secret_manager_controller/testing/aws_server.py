"""The HTTP side of the AWS test server: Secrets Manager and KMS by moto, STS, faults and the call log.

moto is asked directly, without the server that it has of its own: that one closes every connection, and looks through
all services for each request.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.request import Request as MotoRequest
from moto.kms import urls as kms
from moto.secretsmanager import urls as secretsmanager

from secret_manager_controller.testing import aws_store
from secret_manager_controller.testing.aws_auth import Login, Logins, check_role
from secret_manager_controller.testing.aws_limits import AwsError, check_limits
from secret_manager_controller.testing.calls import OK, Call
from secret_manager_controller.testing.controls import Controls, Handler, Server
from secret_manager_controller.testing.faults import Faults

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

_SERVICES: Mapping[str, Any] = {"secretsmanager": secretsmanager, "TrentService": kms}
"""moto's modules that say what answers, by what requests name the service (https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html)."""


@dataclass(slots=True)
class Request:
    """One request, taken apart.

    Attributes:
        headers: names in lower case.
        service: how the API's protocol names the service, e.g. `secretsmanager`.
        names: the secrets that it names.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    service: str
    operation: str
    parameters: Mapping[str, Any] = field(repr=False)
    names: tuple[str, ...]
    at: float = field(default_factory=time.time)
    who: str = "-"

    @classmethod
    def of(cls, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
        """Find out which operation on which secrets a request asks for."""
        service, _, operation = headers.get("x-amz-target", "").rpartition(".")
        parameters: dict[str, Any] = json.loads(body or b"{}") if operation else dict(parse_qsl(body.decode()))
        named = [parameters.get("Name"), parameters.get("SecretId"), *parameters.get("SecretIdList", [])]
        names = tuple(str(name) for name in named if name)
        return cls(
            method, path, headers, body, service, operation or str(parameters.get("Action", "-")), parameters, names
        )


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
    """What stands in for AWS Secrets Manager, STS and KMS."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.logins = Logins()
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.backends = aws_store.install()
        self._numbered = 0

    def serve(self, request: Request) -> Answer:
        """Answer one request and note it."""
        answer = self._serve(request)
        self._note(request, answer)
        return answer

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
                    method=request.method, path=request.path, headers=request.headers, body=request.body
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
        service = _SERVICES.get(request.service)
        if service is None:
            raise AwsError("UnknownOperationException", "There is no such service here.")
        url = f"http://{request.headers['host']}{request.path}"
        asked = MotoRequest.from_primitives(request.method, url, request.headers, request.body)
        try:
            with self.lock:
                status, _, body = service.url_paths["{0}/$"](asked, url, asked.headers)
        except NotImplementedError as unknown:  # moto's own answer to what it does not know.
            raise AwsError("UnknownOperationException", str(unknown)) from None
        if status < 400:
            return Answer(status, body.encode())
        # The service answers 400 where moto says 404.
        error = json.loads(body)
        return _error(request, AwsError(error["__type"], error.get("message", ""), status=400 if status < 500 else 500))

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


def make(application: AwsApplication, controls: Controls[AwsApplication], *, port: int) -> Server:
    """Return a server bound to loopback; port 0 takes a free one."""
    return Server(port, type("AwsHandler", (_Handler,), {"application": application, "controls": controls}))


class _Handler(Handler):
    application: AwsApplication

    def answer(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.application.serve(Request.of(self.command, self.path, headers, body))
        if answer.status == 0:
            self.break_off()
            return
        later = {} if answer.retry_after is None else {"retry-after": f"{answer.retry_after:g}"}
        identified = {"x-amzn-RequestId": secrets.token_hex(16), **later}
        self.send(answer.status, answer.body, kind=answer.kind, headers=identified)


def _error(request: Request, error: AwsError, *, committed: bool = False, retry_after: float | None = None) -> Answer:
    if request.operation in ASSUME:
        text = _STS_ERROR.format(code=escape(error.code), message=escape(error.message))
        return Answer(error.status, text.encode(), error.code, committed, "text/xml", retry_after)
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return Answer(error.status, body, error.code, committed, retry_after=retry_after)
