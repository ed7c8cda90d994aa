"""AWS's refusals, told for people: what is wrong and what mends it, without the service's own text."""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.providers import calls

THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
UNAVAILABLE = frozenset(
    {
        "IDPCommunicationError",
        "InternalError",
        "InternalFailure",
        "InternalServiceError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
    }
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})

_UNKNOWN_LOGIN = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_KEY_UNUSABLE = frozenset({"DecryptionFailure", "EncryptionFailure"})

_PERMISSIONS = {
    # https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html, …_BatchGetSecretValue.html
    "CreateSecret": "secretsmanager:CreateSecret and secretsmanager:TagResource",
    "BatchGetSecretValue": "secretsmanager:BatchGetSecretValue and secretsmanager:GetSecretValue",
}


@dataclass(frozen=True, slots=True)
class Refusal(calls.Refusal):
    """An answer that is an error, or no answer at all.

    Attributes:
        code: AWS's error code, or the type of the connection's failure.
        status: HTTP status, 0 where there was no answer.
        retry_after: seconds that AWS asks to wait.
    """

    code: str
    status: int
    retry_after: float | None = None

    @property
    def throttled(self) -> bool:
        """Whether AWS asks for fewer requests."""
        return self.code in THROTTLED or self.status == 429

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed soon."""
        return self.throttled or self.status == 0 or self.status >= 500 or self.code in UNAVAILABLE


def told(refusal: Refusal, *, operation: str, about: str | None, login: str) -> ControllerError:
    """Return the error that a refusal means.

    Args:
        refusal: what AWS answered.
        operation: the API's name of the request.
        about: the secret or role that it named.
        login: who asked, e.g. `access key …ABCD`.
    """
    code = foreign(refusal.code)
    where = operation if about is None else f"{operation} for {foreign(repr(about))}"
    if refusal.throttled:
        message = f"AWS asks for fewer requests ({code} on {where}); it is tried again later"
        return RetryableError(Reason.RATE_LIMITED, message, retry_after=refusal.retry_after)
    if refusal.passing:
        cause = "did not answer" if refusal.status == 0 else "cannot answer now"
        message = f"AWS {cause} ({code} on {where}); check the region, the network and the AWS health page if it lasts"
        return RetryableError(Reason.STORE_UNAVAILABLE, message, retry_after=refusal.retry_after)
    if refusal.code in EXPIRED:
        message = f"AWS says that the session of {login} has expired ({where}); renew its Secret, or check the clock"
        return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if refusal.code in _UNKNOWN_LOGIN:
        message = f"AWS does not accept {login} ({code} on {where}); check the keys and this machine's clock"
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    if refusal.code in _DENIED:
        permission = _PERMISSIONS.get(operation, f"secretsmanager:{operation}")
        message = f"AWS denies {where}; allow {permission} to {login}, and the use of its KMS key if it has one"
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    return PermanentError(Reason.STORE_REFUSED, f"AWS refuses {where} ({code}){_hint(refusal.code, operation)}")


def told_of_role(refusal: Refusal, *, role: str, token_file: str) -> ControllerError:
    """Return the error that a refused exchange of a web identity token means."""
    code, named = foreign(refusal.code), foreign(repr(role))
    if refusal.passing:
        return told(refusal, operation="AssumeRoleWithWebIdentity", about=role, login="the pod's token")
    if refusal.code in EXPIRED:
        # The kubelet replaces the file long before that; it does so again when it catches up.
        message = f"the token in {foreign(token_file)} has expired; check the kubelet and this machine's clock"
        return RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
    if refusal.code in _DENIED:
        message = f"AWS does not let this pod assume {named}; its trust policy must name the pod's service account"
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    message = (
        f"AWS does not take the token in {foreign(token_file)} for {named} ({code}); the account needs the cluster's "
        "OIDC provider, and the token the audience sts.amazonaws.com"
    )
    return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)


def told_of_assumption(refusal: Refusal, *, role: str, keys: str) -> ControllerError:
    """Return the error that a refused AssumeRole means."""
    if refusal.code in _DENIED:
        message = (
            f"AWS does not let {keys} assume {foreign(repr(role))}; allow it sts:AssumeRole, and name it in the role's "
            "trust policy"
        )
        return PermanentError(Reason.STORE_ACCESS_DENIED, message)
    return told(refusal, operation="AssumeRole", about=role, login=keys)


def _hint(code: str, operation: str) -> str:
    if operation == "TagResource" and code in {"InvalidParameterException", "LimitExceededException"}:
        return ": a secret has at most 50 tags; remove some of its own, or of spec.provider.aws.tags"
    if code in _KEY_UNUSABLE:
        return ": its KMS key is disabled, scheduled for deletion, or may not be used by this login"
    if code == "LimitExceededException":
        return ": a quota of the account is reached, or the secret has 100 versions of the last 24 hours"
    return ""
