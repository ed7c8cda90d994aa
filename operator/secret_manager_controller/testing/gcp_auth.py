"""Who calls the Google test server: keys of service accounts, tokens, and what they are exchanged for.

Four exchanges, as Google's: a key's signed assertion (RFC 7523), a cluster's token (RFC 8693, workload identity
federation), a token for that of a service account (impersonation), and GKE's metadata server, which asks for nothing.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from secret_manager_controller.testing import tokens
from secret_manager_controller.testing.gcp_limits import GcpError

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
POOL = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/clusters/providers/cluster"
"""The audience of the one workload identity provider that exists."""
LONGEST_ASSERTION = 3600.0  # Seconds that an assertion may hold.

_EMAIL = re.compile(r"[^@/]+@[^@/]+")


class Refused(Exception):  # noqa: N818 - the exchanges' own word.
    """An exchange answers an error.

    Attributes:
        status: of HTTP.
        body: the JSON document of the answer.
        code: for the call log.
    """

    def __init__(self, status: int, body: Mapping[str, Any], code: str) -> None:
        super().__init__(code)
        self.status, self.body, self.code = status, body, code


@dataclass(frozen=True, slots=True)
class _Issued:
    who: str
    expires: float


class Callers:
    """The service accounts' keys and every token that was issued; the caller serialises access.

    Attributes:
        workload: the service account that the metadata server speaks for.
        lifetime: seconds that a token holds.
        not_impersonated: emails that nobody may impersonate.
    """

    def __init__(self, project: str) -> None:
        self.workload: str | None = f"workload@{project}.iam.gserviceaccount.com"
        self.lifetime = 3600.0
        self.not_impersonated: set[str] = set()
        self._keys: dict[str, tuple[str, rsa.RSAPublicKey]] = {}
        self._issued: dict[str, _Issued] = {}

    def make_key(self, email: str, *, token_uri: str, project: str) -> dict[str, str]:
        """Return the JSON document of a new key of a service account."""
        key = rsa.generate_private_key(65_537, 2048)
        key_id = secrets.token_hex(20)
        self._keys[key_id] = (email, key.public_key())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": project,
            "private_key_id": key_id,
            "private_key": pem.decode(),
            "client_email": email,
            "client_id": str(secrets.randbelow(10**21)),
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }

    def remove_key(self, key_id: str) -> None:
        """Refuse a key from now on, as when it is deleted; its tokens hold on."""
        self._keys.pop(key_id, None)

    def expire_tokens(self) -> None:
        """Let every token that was issued have expired."""
        self._issued = {token: _Issued(issued.who, 0.0) for token, issued in self._issued.items()}

    def who(self, authorization: str) -> str:
        """Return who a request says that it is from, whether the token still holds or not."""
        issued = self._issued.get(authorization.removeprefix("Bearer "))
        return "-" if issued is None else issued.who

    def check(self, authorization: str) -> None:
        """Check the token of a request.

        Raises:
            GcpError: UNAUTHENTICATED.
        """
        issued = self._issued.get(authorization.removeprefix("Bearer "))
        if issued is None or issued.expires <= time.time():
            reason = "ACCESS_TOKEN_EXPIRED" if issued else "CREDENTIALS_MISSING"
            raise GcpError("UNAUTHENTICATED", "Request had invalid authentication credentials.", reason=reason)

    def by_key(self, form: Mapping[str, str], *, token_uri: str) -> dict[str, Any]:
        """Answer the token endpoint for a service account's assertion."""
        if form.get("grant_type") != JWT_BEARER:
            raise _oauth("unsupported_grant_type", "Invalid grant_type.")
        try:
            head, body, signature = form.get("assertion", "").split(".")
            header, claims = tokens.decoded(head), tokens.decoded(body)
            issued, expires = float(claims["iat"]), float(claims["exp"])
        except (ValueError, KeyError, TypeError):
            raise _oauth("invalid_grant", "Invalid JWT: it cannot be read.") from None
        email, key = self._keys.get(str(header.get("kid")), ("", None))
        if key is None or claims.get("iss") != email:
            raise _oauth("invalid_grant", "Invalid JWT Signature.")
        try:
            data = tokens.from_base64url(signature)
            key.verify(data, f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            raise _oauth("invalid_grant", "Invalid JWT Signature.") from None
        if claims.get("aud") != token_uri:
            raise _oauth("invalid_grant", "Invalid JWT: its audience is another.")
        if not time.time() - LONGEST_ASSERTION <= issued <= time.time() + 60 or expires <= time.time():
            raise _oauth("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
        if not claims.get("scope"):
            raise _oauth("invalid_scope", "A scope is needed.")
        return self._token(email)

    def by_federation(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer the security token service for a cluster's token."""
        if form.get("grant_type") != TOKEN_EXCHANGE:
            raise _oauth("unsupported_grant_type", "Invalid grant_type.")
        if form.get("audience") != POOL:
            raise _oauth("invalid_target", "The target service indicated by the audience is invalid.")
        try:
            claims, audiences = tokens.claims_of(form.get("subject_token", ""))
        except tokens.TokenError as error:
            raise _oauth("invalid_grant", f"The ID Token cannot be taken: {error}.") from None
        if f"https:{POOL}" not in audiences:
            raise _oauth("invalid_grant", "The audience in ID Token does not match the expected audience.")
        if claims["exp"] <= time.time():
            raise _oauth("invalid_grant", "The ID Token is stale to sign-in.")
        issued = "urn:ietf:params:oauth:token-type:access_token"
        return {**self._token(f"principal:{claims['sub']}"), "issued_token_type": issued}

    def by_impersonation(self, email: str, authorization: str) -> dict[str, Any]:
        """Answer IAM Credentials' generateAccessToken."""
        try:
            self.check(authorization)
        except GcpError as error:
            raise _api(401, error.code, error.message) from None
        if not _EMAIL.fullmatch(email):
            raise _api(400, "INVALID_ARGUMENT", "Invalid form of account ID.")
        if email in self.not_impersonated:
            message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            raise _api(403, "PERMISSION_DENIED", message)
        token = self._token(email)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime))
        return {"accessToken": token["access_token"], "expireTime": expires}

    def by_metadata(self) -> dict[str, Any]:
        """Answer the metadata server."""
        if self.workload is None:
            raise _api(404, "NOT_FOUND", "The pod's service account is bound to no identity.")
        return self._token(self.workload)

    def _token(self, who: str) -> dict[str, Any]:
        token = f"ya29.{secrets.token_urlsafe(48)}"
        self._issued[token] = _Issued(who, time.time() + self.lifetime)
        return {"access_token": token, "expires_in": int(self.lifetime), "token_type": "Bearer"}


def federation_document(*, token_url: str, token_file: str, impersonation_url: str | None = None) -> bytes:
    """Return a credential configuration file for workload identity federation with a projected token."""
    document: dict[str, Any] = {
        "type": "external_account",
        "audience": POOL,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_url,
        "credential_source": {"file": token_file, "format": {"type": "text"}},
    }
    if impersonation_url is not None:
        document["service_account_impersonation_url"] = impersonation_url
    return json.dumps(document).encode()


def _oauth(error: str, description: str) -> Refused:
    return Refused(400, {"error": error, "error_description": description}, error)


def _api(status: int, code: str, message: str) -> Refused:
    return Refused(status, {"error": {"code": status, "status": code, "message": message}}, code)
