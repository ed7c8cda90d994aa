"""Who calls the AWS test server: keys and the signatures they make, tokens and the sessions they open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from secret_manager_controller.testing.aws_limits import AwsError

AUDIENCE = "sts.amazonaws.com"
TOKEN_KEY = b"secret-manager-controller test server"
"""Signs the tokens that `web_identity_token` makes. It opens nothing but a test server."""

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
    """Return a token as a kubelet projects it, signed with the test server's own key.

    Args:
        subject: e.g. `system:serviceaccount:tools:secret-manager-controller`.
        audience: what it is meant for; AWS takes `sts.amazonaws.com`.
        lifetime: seconds from now; a negative one makes a token that has expired.
    """
    now = int(time.time())
    claims = {"iss": "https://issuer.test", "sub": subject, "aud": [audience], "iat": now, "exp": now + lifetime}
    # The nonce makes two tokens of one second differ, as a kubelet's do.
    head = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode({**claims, 'jti': secrets.token_hex(8)})}"
    return f"{head}.{_base64url(_sign(head))}"


def check_token(token: str) -> None:
    """Check a web identity token as STS does.

    A token of another algorithm than HS256 is taken for a real cluster's, whose issuer this server cannot ask: its
    signature is not checked.

    Raises:
        AwsError: InvalidIdentityToken or ExpiredTokenException.
    """
    try:
        head, body, signature = token.split(".")
        header, claims = _decode(head), _decode(body)
        algorithm, expires = str(header["alg"]), float(claims["exp"])
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    except (ValueError, KeyError, TypeError):
        raise AwsError("InvalidIdentityToken", "The ID Token provided is not a valid JWT.") from None
    forged = algorithm == "HS256" and not hmac.compare_digest(_base64url(_sign(f"{head}.{body}")), signature)
    if algorithm.lower() == "none" or not signature or forged:
        raise AwsError("InvalidIdentityToken", "Couldn't verify the signature of the token.")
    if AUDIENCE not in audiences:
        raise AwsError("InvalidIdentityToken", "Incorrect token audience")
    if expires <= time.time():
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


def check_role(parameters: Mapping[str, str]) -> str:
    """Return `role/session` of an AssumeRoleWithWebIdentity request after checking its token.

    Raises:
        AwsError: ValidationError, InvalidIdentityToken or ExpiredTokenException.
    """
    role = _ROLE.fullmatch(parameters.get("RoleArn", ""))
    session = parameters.get("RoleSessionName", "")
    if role is None or not _SESSION.fullmatch(session):
        raise AwsError("ValidationError", "RoleArn or RoleSessionName is invalid")
    if not 900 <= int(parameters.get("DurationSeconds", "3600")) <= 43_200:
        raise AwsError("ValidationError", "DurationSeconds must be 900 to 43200")
    check_token(parameters.get("WebIdentityToken", ""))
    return f"{role.group(1)}/{session}"


def _sign(head: str) -> bytes:
    return hmac.new(TOKEN_KEY, head.encode(), hashlib.sha256).digest()


def _encode(part: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(part).encode())


def _decode(part: str) -> dict[str, Any]:
    decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(decoded, dict):
        raise TypeError("a part of a token is a JSON object")
    return decoded


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
