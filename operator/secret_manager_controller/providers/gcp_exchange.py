"""What logins exchange for access tokens: four requests over HTTP, each made once, none of them redirected.

They are made here rather than by google-auth's credentials, which retry in their threads, look for settings in their
surroundings, and put what was answered into exceptions. It signs the assertions.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from google.auth import jwt

from secret_manager_controller.providers import calls
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT
from secret_manager_controller.providers.gcp_errors import GcpRefusal

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LIFETIME = 3600  # Seconds; the longest that a token holds without a policy that allows more.
CONNECT_TIMEOUT = 2.0  # Seconds; where there is no metadata server, nothing answers at all.
LONGEST_ANSWER = 65_536  # Bytes; a token has some 1,000.

_TOKEN = re.compile(r"[\x21-\x7e]+")
_OAUTH_ERROR = re.compile(r"[a-z_]{1,64}")
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and how many seconds it holds from now on."""

    value: str = field(repr=False)
    lifetime: float


@dataclass(frozen=True, slots=True)
class Key:
    """A service account's key.

    Attributes:
        email: whose it is.
        key_id: its id, as the console shows it.
        signer: of google-auth.
    """

    email: str
    key_id: str
    signer: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Federation:
    """What a credential configuration file says.

    Attributes:
        audience: the workload identity provider.
        token_type: of the token that is exchanged.
        token_url: of the security token service.
        token_file: where the token is.
        field_name: the field of a JSON document that holds the token; None where the file is the token.
        impersonation_url: whose token is wanted in the end, or None for the federated one.
    """

    audience: str
    token_type: str
    token_url: str
    token_file: Path
    field_name: str | None
    impersonation_url: str | None


def by_metadata(host: str) -> Token | GcpRefusal:
    """Ask the metadata server (https://cloud.google.com/compute/docs/access/authenticate-workloads)."""
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token?{urlencode({'scopes': SCOPE})}"
    answer = _fetch("GET", url, {"Metadata-Flavor": "Google"}, b"", None)
    return answer if isinstance(answer, GcpRefusal) else _oauth_token(answer)


def by_key(key: Key, *, url: str, roots: Path | None) -> Token | GcpRefusal:
    """Exchange a signed assertion (RFC 7523; https://developers.google.com/identity/protocols/oauth2/service-account)."""
    assertion = _signed(key, {"aud": url, "scope": SCOPE})
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = _post_form(url, form, roots)
    return answer if isinstance(answer, GcpRefusal) else _oauth_token(answer)


def self_signed(key: Key) -> Token:
    """Return a token that a key signs itself, for universes without a token endpoint (https://google.aip.dev/auth/4111)."""
    return Token(_signed(key, {"sub": key.email, "scope": SCOPE}), LIFETIME)


def by_federation(federation: Federation, subject_token: str, roots: Path | None) -> Token | GcpRefusal:
    """Exchange a cluster's token (RFC 8693; https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token)."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": federation.audience,
        "scope": SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": subject_token,
        "subject_token_type": federation.token_type,
    }
    answer = _post_form(federation.token_url, form, roots)
    return answer if isinstance(answer, GcpRefusal) else _oauth_token(answer)


def by_impersonation(url: str, token: Token, roots: Path | None) -> Token | GcpRefusal:
    """Exchange a token for a service account's (…/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts)."""
    body = json.dumps({"scope": [SCOPE], "lifetime": f"{LIFETIME}s"}).encode()
    headers = {"Authorization": f"Bearer {token.value}", "Content-Type": "application/json"}
    answer = _fetch("POST", url, headers, body, roots)
    if isinstance(answer, GcpRefusal):
        return answer
    try:
        expires = datetime.fromisoformat(str(answer["expireTime"])).timestamp()
        return _token(answer["accessToken"], expires - time.time())
    except (KeyError, ValueError):
        return GcpRefusal("UNKNOWN")


def _oauth_token(answer: Mapping[str, Any]) -> Token | GcpRefusal:
    try:
        return _token(answer["access_token"], float(answer["expires_in"]))
    except (KeyError, ValueError, TypeError):
        return GcpRefusal("UNKNOWN")


def _token(value: object, lifetime: float) -> Token:
    # It becomes a header: what a proxy answers in Google's stead must not add another one.
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("it is no token")
    return Token(value, lifetime)


def _signed(key: Key, claims: Mapping[str, str]) -> str:
    now = int(time.time())
    signed: bytes = jwt.encode(key.signer, {"iss": key.email, "iat": now, "exp": now + LIFETIME, **claims})
    return signed.decode()


def _post_form(url: str, form: Mapping[str, str], roots: Path | None) -> Mapping[str, Any] | GcpRefusal:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return _fetch("POST", url, headers, urlencode(form).encode(), roots)


def _fetch(
    method: str, url: str, headers: Mapping[str, str], body: bytes, roots: Path | None
) -> Mapping[str, Any] | GcpRefusal:
    """Make one request and return the JSON object that is answered."""
    parts = urlsplit(url)
    try:
        connection = _connection(parts.scheme, parts.netloc, roots)
        try:
            connection.connect()
            connection.sock.settimeout(REQUEST_TIMEOUT - CONNECT_TIMEOUT)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.request(method, target, body or None, dict(headers))
            response = connection.getresponse()
            data = response.read(LONGEST_ANSWER)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return GcpRefusal(type(error).__name__, answered=False)
    document = _object(data)
    if response.status == http.HTTPStatus.OK:
        return GcpRefusal("UNKNOWN") if document is None else document
    server_error = response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    code = _CODES.get(response.status, "INTERNAL" if server_error else "INVALID_ARGUMENT")
    return GcpRefusal(code, _reason(document), _seconds(response.headers.get("retry-after", "")))


def _connection(scheme: str, netloc: str, roots: Path | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(netloc, timeout=CONNECT_TIMEOUT)
    context = ssl.create_default_context(cafile=None if roots is None else str(roots))
    return http.client.HTTPSConnection(netloc, timeout=CONNECT_TIMEOUT, context=context)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _reason(document: Mapping[str, Any] | None) -> str:
    """Return OAuth's error code, which is a word of the protocol; nothing else that was answered is told."""
    error = (document or {}).get("error")
    return error if isinstance(error, str) and _OAUTH_ERROR.fullmatch(error) else ""


def _seconds(header: str) -> float | None:
    try:
        return calls.believed(float(header))
    except ValueError:
        return None  # Absent, or a date.
