"""Azure's refusals, told for people: what is wrong and what mends it, without the service's own text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.providers import calls
from secret_manager_controller.providers.azure_login import AzureFederation, AzureLogin

NO_SUCH_HOST = "NoSuchHost"
"""Our own code for a host name that does not exist."""
OTHER_RESOURCE = "OtherResource"
"""Our own code for a challenge that asks for a token for something else than the vaults of this cloud."""

NOT_FOUND = "SecretNotFound"
DISABLED = "SecretDisabled"
DELETED = "ObjectIsDeletedButRecoverable"
BEING_DELETED = "ObjectIsBeingDeleted"
BEING_RECOVERED = "ObjectIsBeingRecovered"
IN_TRANSITION = frozenset({DELETED, BEING_DELETED, BEING_RECOVERED, "Conflict"})

CLOSED = frozenset({"ForbiddenByFirewall", "ForbiddenByConnection"})
_TRANSIENT = frozenset({"temporarily_unavailable", "AADSTS90033", "AADSTS90024"})

_PERMISSIONS: Mapping[str, tuple[str, str]] = {
    # https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault
    "GetSecrets": ("readMetadata/action", "List"),
    "GetSecretVersions": ("readMetadata/action", "List"),
    "GetDeletedSecrets": ("readMetadata/action", "List"),
    "GetDeletedSecret": ("readMetadata/action", "Get"),
    "GetSecret": ("getSecret/action", "Get"),
    "SetSecret": ("setSecret/action", "Set"),
    "UpdateSecret": ("update/action", "Set"),
    "DeleteSecret": ("delete", "Delete"),
    "RecoverDeletedSecret": ("recover/action", "Recover"),
}
"""Of each operation the data action that a role must allow, and the permission that an access policy must."""

_FEDERATION: Mapping[str, str] = {
    # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    "AADSTS70021": "issuer, subject and audience",
    "AADSTS700211": "issuer",
    "AADSTS700212": "audience (api://AzureADTokenExchange)",
    "AADSTS700213": "subject",
}
_LOGIN_HINTS: Mapping[str, str] = {
    "AADSTS700016": "there is no such application in the tenant: check the client id and the tenant id",
    "AADSTS7000112": "the application is disabled",
    "AADSTS7000215": "the client secret is wrong: store its value, not its id",
    "AADSTS90002": "there is no such tenant: check the tenant id and AZURE_AUTHORITY_HOST",
    "AADSTS900023": "the tenant id is neither an id nor a domain",
}
_ASSERTION_EXPIRED = "AADSTS700024"
_SECRET_EXPIRED = "AADSTS7000222"  # noqa: S105 - an error's number.


@dataclass(frozen=True, slots=True)
class AzureRefusal(calls.Refusal):
    """An answer that is an error, or no answer at all.

    Attributes:
        code: the service's error code, the inner one where it tells two; or what we call the connection's failure.
        status: HTTP status, 0 where there was no answer of Azure's.
        retry_after: seconds that Azure asks to wait.
    """

    code: str
    status: int
    retry_after: float | None = None

    @property
    def throttled(self) -> bool:
        """Whether Azure asks for fewer requests."""
        return self.status == 429

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed soon."""
        if self.code == NO_SUCH_HOST:
            return False
        return self.throttled or self.status in {0, 408} or self.status >= 500 or self.code in _TRANSIENT

    @property
    def unauthorized(self) -> bool:
        """Whether the token is not accepted."""
        return self.status == 401


def told(refusal: AzureRefusal, *, operation: str, about: str | None, login: AzureLogin, host: str) -> ControllerError:
    """Return the error that a vault's refusal means.

    Args:
        refusal: what the vault answered.
        operation: the API's name of the request.
        about: the secret that it named.
        login: who asked.
        host: the vault's host name.
    """
    code, vault = foreign(refusal.code), foreign(host)
    where = operation if about is None else f"{operation} for {foreign(repr(about))}"
    if refusal.throttled:
        message = f"{vault} asks for fewer requests ({code} on {where}); it is tried again later"
        return RetryableError(Reason.RATE_LIMITED, message, retry_after=refusal.retry_after)
    if refusal.code == NO_SUCH_HOST:
        message = (
            f"there is no host {vault}; correct spec.provider.azure.vaultName, create the vault, or link its private "
            "DNS zone to the cluster's network"
        )
        return PermanentError(Reason.STORE_REFUSED, message)
    if refusal.passing:
        cause = "did not answer" if refusal.status == 0 else "cannot answer now"
        message = f"{vault} {cause} ({code} on {where}); check the vault's name, the network and the Azure status page"
        return RetryableError(Reason.STORE_UNAVAILABLE, message, retry_after=refusal.retry_after)
    if refusal.unauthorized:
        message = (
            f"{vault} does not accept the token of {login.title} ({where}); check that the vault belongs to tenant "
            f"{foreign(login.tenant_id)}, and this machine's clock"
        )
        return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if refusal.code in CLOSED:
        message = f"{vault} lets no request in from here ({code}); allow this cluster's addresses or private endpoint"
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    if refusal.status == 403:
        action, permission = _PERMISSIONS.get(operation, ("*", "All"))
        message = (
            f"{vault} denies {where} ({code}); give {login.title} the role Key Vault Secrets Officer there (its data "
            f"action Microsoft.KeyVault/vaults/secrets/{action}), or {permission} in the vault's access policies. A "
            "new role takes some minutes"
        )
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    if refusal.code == OTHER_RESOURCE:
        message = f"{vault} wants tokens that are not for its own domain; check AZURE_AUTHORITY_HOST and the DNS suffix"
        return PermanentError(Reason.STORE_REFUSED, message)
    return PermanentError(Reason.STORE_REFUSED, f"{vault} refuses {where} ({code})")


def told_of_login(refusal: AzureRefusal, *, login: AzureLogin, authority: str) -> ControllerError:
    """Return the error that Entra's refusal of a token means."""
    code, who, entra = foreign(refusal.code), f"{login.title} of tenant {foreign(login.tenant_id)}", foreign(authority)
    if refusal.throttled:
        message = f"{entra} asks for fewer logins ({code}); it is tried again later"
        return RetryableError(Reason.RATE_LIMITED, message, retry_after=refusal.retry_after)
    if refusal.code == NO_SUCH_HOST:
        return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, f"there is no host {entra}; check AZURE_AUTHORITY_HOST")
    if refusal.passing:
        cause = "did not answer" if refusal.status == 0 else "cannot answer now"
        message = f"{entra} {cause} ({code} for {who}); check AZURE_AUTHORITY_HOST and the network if it lasts"
        return RetryableError(Reason.STORE_UNAVAILABLE, message, retry_after=refusal.retry_after)
    if isinstance(login, AzureFederation) and refusal.code == _ASSERTION_EXPIRED:
        # The kubelet replaces the file long before that; it does so again when it catches up.
        message = f"the token in {foreign(login.token_file)} has expired; check the kubelet and this machine's clock"
        return RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if refusal.code == _SECRET_EXPIRED:
        message = f"the client secret of {who} has expired ({code}); make a new one and store it"
        return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if isinstance(login, AzureFederation) and (differs := _FEDERATION.get(refusal.code)) is not None:
        message = (
            f"Azure does not let this pod log in as {who} ({code}): no federated credential of it has the {differs} of "
            f"the token in {foreign(login.token_file)}; add one for the controller's service account"
        )
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    hint = _LOGIN_HINTS.get(refusal.code, "check the client id, the tenant id and its secret or federated credential")
    return PermanentError(Reason.STORE_ACCESS_DENIED, f"Azure does not accept the login of {who} ({code}): {hint}")
