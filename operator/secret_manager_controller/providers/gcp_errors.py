"""Google's refusals, told for people: what is wrong and what mends it, without the service's own text."""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.providers import calls

THROTTLED = "RESOURCE_EXHAUSTED"
EXPIRED = "UNAUTHENTICATED"
TIMED_OUT = "DEADLINE_EXCEEDED"
NOT_FOUND = "NOT_FOUND"
EXISTS = "ALREADY_EXISTS"
PRECONDITION = "FAILED_PRECONDITION"
"""Says that an etag is an old one, or that a version is disabled or destroyed."""
_DENIED = "PERMISSION_DENIED"
_PASSING = frozenset({THROTTLED, TIMED_OUT, "ABORTED", "CANCELLED", "DATA_LOSS", "INTERNAL", "UNAVAILABLE", "UNKNOWN"})

_PERMISSIONS = {
    # https://cloud.google.com/secret-manager/docs/access-control
    "ListSecrets": "secretmanager.secrets.list",
    "GetSecret": "secretmanager.secrets.get",
    "CreateSecret": "secretmanager.secrets.create",
    "UpdateSecret": "secretmanager.secrets.update",
    "DeleteSecret": "secretmanager.secrets.delete",
    "AddSecretVersion": "secretmanager.versions.add",
    "GetSecretVersion": "secretmanager.versions.get",
    "AccessSecretVersion": "secretmanager.versions.access",
    "ListSecretVersions": "secretmanager.versions.list",
    "DisableSecretVersion": "secretmanager.versions.disable",
    "DestroySecretVersion": "secretmanager.versions.destroy",
}
_DENIALS = {
    # https://cloud.google.com/apis/design/errors#error_info: the reasons of googleapis.com.
    "SERVICE_DISABLED": "the Secret Manager API is not enabled there; run gcloud services enable "
    "secretmanager.googleapis.com --project {project}",
    "CONSUMER_INVALID": "there is no project {project} that it may see; check spec.provider.gcp.projectId, which is "
    "neither the title nor the number",
    "CONSUMER_SUSPENDED": "project {project} is suspended",
    "BILLING_DISABLED": "project {project} has no billing account; link one",
    "SECURITY_POLICY_VIOLATED": "a perimeter of VPC Service Controls forbids it; let it in by an ingress rule",
}


@dataclass(frozen=True, slots=True)
class GcpRefusal(calls.Refusal):
    """An answer that is an error, or no answer at all.

    Attributes:
        code: the canonical code, e.g. `NOT_FOUND`, or the type of the connection's failure.
        reason: of google.rpc.ErrorInfo, or OAuth's error code.
        answered: whether anybody answered.
    """

    code: str
    reason: str = ""
    retry_after: float | None = None
    answered: bool = True

    @property
    def throttled(self) -> bool:
        """Whether Google asks for fewer requests."""
        return self.code == THROTTLED

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed soon."""
        return self.code in _PASSING or not self.answered


def told(refusal: GcpRefusal, *, operation: str, about: str | None, login: str, project: str) -> ControllerError:
    """Return the error that a refusal of Secret Manager means.

    Args:
        refusal: what was answered.
        operation: the API's name of the request.
        about: the secret that it named.
        login: who asked, e.g. `service account a@b.iam.gserviceaccount.com`.
        project: where.
    """
    where = f"{operation} in project {foreign(project)}"
    where = where if about is None else f"{operation} for {foreign(repr(about))} in project {foreign(project)}"
    code, who = _named(refusal), foreign(login)
    if refusal.throttled:
        message = (
            f"Google asks for fewer requests ({where}): a quota of the project is used up; it is tried again later"
        )
        return RetryableError(Reason.RATE_LIMITED, message, retry_after=refusal.retry_after)
    if refusal.passing:
        return _unavailable(refusal, where)
    if refusal.code == EXPIRED:
        message = f"Google does not accept the token of {who} any more ({where}); log in anew, or check the clock"
        return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if refusal.code == _DENIED:
        known = _DENIALS.get(refusal.reason)
        permission = _PERMISSIONS.get(operation, "the permission")
        mend = (
            f"grant {permission} to {who}: roles/secretmanager.admin has it"
            if known is None
            else known.format(project=foreign(project))
        )
        return PermanentError(Reason.STORE_ACCESS_DENIED, f"Google denies {where}; {mend}")
    return PermanentError(Reason.STORE_REFUSED, f"Google refuses {where} ({code}){_hint(refusal, operation)}")


def told_of_login(refusal: GcpRefusal, *, step: str, login: str, mend: str) -> ControllerError:
    """Return the error that a refused step of a login means.

    Args:
        refusal: what was answered.
        step: what was asked, e.g. `the token endpoint for the key of a@b.iam.gserviceaccount.com`.
        login: whose login it is.
        mend: what mends it if the refusal is meant.
    """
    if refusal.throttled:
        message = f"Google asks for fewer requests ({foreign(step)}); it is tried again later"
        return RetryableError(Reason.RATE_LIMITED, message, retry_after=refusal.retry_after)
    if refusal.passing:
        return _unavailable(refusal, step)
    message = f"{foreign(step)} refuses the login of {foreign(login)} ({_named(refusal)}); {mend}"
    denied = refusal.code == _DENIED
    return PermanentError(Reason.STORE_ACCESS_DENIED if denied else Reason.CREDENTIALS_UNAVAILABLE, message)


def unusable(message: str) -> PermanentError:
    """Return the error of a login that cannot be tried at all."""
    return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)


def _unavailable(refusal: GcpRefusal, where: str) -> ControllerError:
    cause = "cannot answer now" if refusal.answered and refusal.code != TIMED_OUT else "did not answer"
    message = (
        f"Google {cause} ({_named(refusal)} on {foreign(where)}); check the network and the health page if it lasts"
    )
    return RetryableError(Reason.STORE_UNAVAILABLE, message, retry_after=refusal.retry_after)


def _named(refusal: GcpRefusal) -> str:
    return foreign(f"{refusal.code}, {refusal.reason}" if refusal.reason else refusal.code)


def _hint(refusal: GcpRefusal, operation: str) -> str:
    if refusal.code == PRECONDITION and operation in {"AddSecretVersion", "AccessSecretVersion", "CreateSecret"}:
        return ": its KMS key may be disabled or out of reach, or a policy of the organisation forbids its place"
    if refusal.code == "INVALID_ARGUMENT" and operation in {"CreateSecret", "UpdateSecret"}:
        return ": a secret has 64 labels and 16 KiB of annotations at most, and a KMS key must be in its own place"
    if refusal.code == NOT_FOUND and operation == "CreateSecret":
        return ": the project, the location or the KMS key that the spec names does not exist"
    return ""
