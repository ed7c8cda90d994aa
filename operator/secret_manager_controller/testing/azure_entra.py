"""Microsoft Entra ID, as far as a login needs it: tokens for client secrets and for federated tokens.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow,
https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from secret_manager_controller.testing import tokens

AUDIENCE = "api://AzureADTokenExchange"
"""What a projected token must be meant for; Azure Government and Azure in China append USGov and China."""
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OPENID_SCOPES = frozenset({"openid", "offline_access", "profile"})
LIFETIME = 3600  # Seconds that an access token lasts; Entra's own are 60 to 90 minutes.


class EntraError(Exception):
    """A refusal: the HTTP status, OAuth's error, and Entra's number."""

    def __init__(self, status: int, error: str, number: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.number = number
        self.message = message

    @property
    def code(self) -> str:
        """The number as messages tell it."""
        return f"AADSTS{self.number}"


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token that is good."""

    client_id: str
    tenant: str
    resource: str
    expires: float


class Entra:
    """One tenant and its applications; the caller serialises access.

    Args:
        tenant: the tenant's id.
        now: seconds since the epoch.
    """

    def __init__(self, tenant: str, now: Callable[[], float]) -> None:
        self.tenant = tenant
        self.clients: dict[str, str] = {}
        """Secrets of applications by their client ids."""
        self._now = now
        self._issued: dict[str, Issued] = {}

    def token(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Exchange a client secret or a federated token for an access token."""
        # Some clients ask for OpenID's scopes beside the resource's.
        scopes = [scope for scope in form.get("scope", "").split() if scope not in OPENID_SCOPES]
        client, scope = form.get("client_id", ""), scopes[0] if len(scopes) == 1 else ""
        if tenant != self.tenant:
            raise EntraError(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials" or not scope.endswith("/.default"):
            raise EntraError(400, "invalid_request", 900144, "The request body must contain grant_type and scope.")
        if client not in self.clients:
            raise EntraError(400, "unauthorized_client", 700016, f"Application with identifier '{client}' not found.")
        if "client_assertion" in form:
            self._check_assertion(form)
        elif not hmac.compare_digest(form.get("client_secret", "").encode(), self.clients[client].encode()):
            raise EntraError(401, "invalid_client", 7000215, "Invalid client secret provided.")
        value = secrets.token_urlsafe(48)
        resource = scope.removesuffix("/.default")
        self._issued[value] = Issued(client, tenant, resource, self._now() + LIFETIME)
        return {"token_type": "Bearer", "expires_in": LIFETIME, "ext_expires_in": LIFETIME, "access_token": value}

    def who(self, authorization: str) -> str:
        """Return who a bearer token was given to, good or not; `-` where that is not known."""
        issued = self._issued.get(authorization.removeprefix("Bearer "))
        return "-" if issued is None else issued.client_id

    def accepts(self, authorization: str, *, resource: str) -> bool:
        """Tell whether a bearer token is good for a resource."""
        issued = self._issued.get(authorization.removeprefix("Bearer "))
        return issued is not None and issued.resource == resource and self._now() < issued.expires

    def expire_all(self) -> None:
        """Let no token be good any more that was given so far."""
        self._issued.clear()

    def _check_assertion(self, form: Mapping[str, str]) -> None:
        try:
            claims, audiences = tokens.claims_of(form["client_assertion"])
        except tokens.TokenError:
            claims, audiences = {}, ()
        if not claims or form.get("client_assertion_type") != ASSERTION_TYPE:
            raise EntraError(401, "invalid_client", 50027, "JWT token is invalid or malformed.")
        if AUDIENCE not in audiences:
            message = "No matching federated identity record found for presented assertion audience."
            raise EntraError(401, "invalid_client", 700212, message)
        if claims["exp"] <= self._now():
            message = "Client assertion is not within its valid time range."
            raise EntraError(401, "invalid_client", 700024, message)
