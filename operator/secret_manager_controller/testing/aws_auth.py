"""Who calls the AWS test server: keys and the signatures they make, tokens and the sessions they open."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from secret_manager_controller.testing import tokens
from secret_manager_controller.testing.aws_limits import AwsError

AUDIENCE = "sts.amazonaws.com"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([a-z0-9-]+)/([a-z]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_ROLE = re.compile(r"arn:aws(?:-[a-z-]+)?:iam::\d{12}:role/(?:[\w+=,.@/-]*/)?([\w+=,.@-]+)")
_SESSION = re.compile(r"[\w+=,.@-]{2,64}")


@dataclass(frozen=True, slots=True)
class Login:
    """An access key that the server knows; `expires` in seconds since the epoch, or None for a user's key."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    who: str
    session_token: str | None = field(default=None, repr=False)
    expires: float | None = None


def web_identity_token(subject: str, *, audience: str = AUDIENCE, lifetime: float = 3600.0) -> str:
    """Return a token as a kubelet projects it for AWS; see `tokens.web_identity_token`."""
    return tokens.web_identity_token(subject, audience=audience, lifetime=lifetime)


def check_token(token: str) -> None:
    """Check a web identity token as STS does.

    Raises:
        AwsError: InvalidIdentityToken or ExpiredTokenException.
    """
    try:
        claims, audiences = tokens.claims_of(token)
    except tokens.TokenError as error:
        raise AwsError("InvalidIdentityToken", f"The ID Token provided cannot be taken: {error}") from None
    if AUDIENCE not in audiences:
        raise AwsError("InvalidIdentityToken", "Incorrect token audience")
    if claims["exp"] <= time.time():
        raise AwsError("ExpiredTokenException", "Token expired")


class Logins:
    """The access keys that exist, and the sessions that tokens were exchanged for."""

    def __init__(self) -> None:
        self._logins: dict[str, Login] = {}

    def add(self, login: Login) -> None:
        """Know a login from now on."""
        self._logins[login.access_key_id] = login

    def remove(self, access_key_id: str) -> None:
        """Forget a login, as when a key is deactivated."""
        self._logins.pop(access_key_id, None)

    def expire_sessions(self) -> None:
        """Let every session that a token was exchanged for be over."""
        for login in list(self._logins.values()):
            if login.session_token is not None:
                self.add(Login(login.access_key_id, login.secret_access_key, login.who, login.session_token, 0.0))

    def claimed(self, headers: Mapping[str, str]) -> str:
        """Return who a request says that it is from, whether that is true or not."""
        parts = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if parts is None:
            return "-"
        login = self._logins.get(parts.group(1))
        return parts.group(1) if login is None else login.who

    def authenticate(self, *, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Check that a request is signed by a login that we know.

        Args:
            method: HTTP method.
            path: URL path.
            headers: of the request, names in lower case.
            body: the request's body.

        Raises:
            AwsError: it is not signed, or by nobody that we know, or wrongly.
        """
        parts = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if parts is None:
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token")
        key, region, service, signed, signature = parts.groups()
        login = self._logins.get(key)
        if login is None or headers.get("x-amz-security-token") != login.session_token:
            raise AwsError("UnrecognizedClientException", "The security token included in the request is invalid.")
        request = AWSRequest(method, f"http://{headers['host']}{path}", data=body)
        for name in signed.split(";"):
            request.headers[name] = headers.get(name, "")
        request.context["timestamp"] = headers.get("x-amz-date", "")
        signer = SigV4Auth(Credentials(key, login.secret_access_key), service, region)
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        if not hmac.compare_digest(expected, signature):
            raise AwsError("InvalidSignatureException", "The request signature we calculated does not match.")
        if login.expires is not None and login.expires <= time.time():
            raise AwsError("ExpiredTokenException", "The security token included in the request is expired")


def check_role(parameters: Mapping[str, str], *, by_token: bool) -> str:
    """Return `role/session` of a request to assume a role after checking it, and its token where it comes by one.

    Raises:
        AwsError: ValidationError, InvalidIdentityToken or ExpiredTokenException.
    """
    role = _ROLE.fullmatch(parameters.get("RoleArn", ""))
    session = parameters.get("RoleSessionName", "")
    if role is None or not _SESSION.fullmatch(session):
        raise AwsError("ValidationError", "RoleArn or RoleSessionName is invalid")
    if not 900 <= int(parameters.get("DurationSeconds", "3600")) <= 43_200:
        raise AwsError("ValidationError", "DurationSeconds must be 900 to 43200")
    if by_token:
        check_token(parameters.get("WebIdentityToken", ""))
    return f"{role.group(1)}/{session}"
