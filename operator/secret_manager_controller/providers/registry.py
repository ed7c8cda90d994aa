"""Which providers there are: a new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secret_manager_controller.errors import ConfigError, PermanentError, Reason
from secret_manager_controller.model.spec import AwsAuth, AwsAuthType
from secret_manager_controller.model.spec import Provider as ProviderSpec
from secret_manager_controller.providers.aws_login import (
    AwsAccessKeys,
    AwsAssumedRole,
    AwsEndpoints,
    AwsLogin,
    AwsWebIdentity,
)
from secret_manager_controller.providers.azure_settings import azure_options
from secret_manager_controller.providers.gcp_settings import gcp_options
from secret_manager_controller.providers.protocol import CallObserver, Provider

Environment = Mapping[str, str]
"""The process's environment variables; each factory reads only those that are documented for its provider."""

SESSION_NAME = "secret-manager-controller"


@dataclass(frozen=True, slots=True)
class Login:
    """What one object brings along: the data of its credential Secret, or None if its spec names none."""

    secret: Mapping[str, bytes] | None = field(repr=False)


ProviderFactory = Callable[[ProviderSpec, Login, Environment, CallObserver], Provider]
"""Makes a provider; raises PermanentError (CredentialsUnavailable) that says what is missing."""


def store_name(provider: ProviderSpec) -> str:
    """Return what tells this store from every other one."""
    match provider.gcp, provider.aws, provider.azure:
        case gcp, None, None if gcp is not None:
            place = gcp.project_id if gcp.location is None else f"{gcp.project_id}/{gcp.location}"
        case None, aws, None if aws is not None:
            place = aws.region
        case None, None, azure if azure is not None:
            place = azure.vault_name
        case _:
            raise ConfigError("spec.provider must have one block, of its type's name")
    return f"{provider.type}/{place}"


def aws_login(auth: AwsAuth | None, login: Login, environment: Environment) -> AwsLogin:
    """Return the login to AWS that an object asks for.

    Without an auth block it is IRSA, or the controller's own access keys where they are all that its environment has,
    as on a developer's machine.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    kind = AwsAuthType.IRSA if auth is None else auth.auth_type
    token_file = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if kind is AwsAuthType.ACCESS_KEYS or (auth is None and not token_file and environment.get("AWS_ACCESS_KEY_ID")):
        keys = _access_keys(auth, login, environment)
        if auth is None or auth.role_arn is None:
            return keys
        return AwsAssumedRole(role_arn=auth.role_arn, keys=keys, session_name=SESSION_NAME)
    role = (auth.role_arn if auth is not None else None) or environment.get("AWS_ROLE_ARN")
    if not token_file:
        raise _missing(
            "the controller has no AWS_WEB_IDENTITY_TOKEN_FILE; annotate its service account with "
            "eks.amazonaws.com/role-arn, or set spec.provider.aws.auth.authType: AccessKeys"
        )
    if not role:
        raise _missing("no role to assume; set spec.provider.aws.auth.roleArn, or AWS_ROLE_ARN in the controller")
    return AwsWebIdentity(role_arn=role, token_file=Path(token_file), session_name=SESSION_NAME)


def _access_keys(auth: AwsAuth | None, login: Login, environment: Environment) -> AwsAccessKeys:
    if auth is None or login.secret is None:
        key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            raise _missing(
                "the controller has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; set both, or name a Secret in "
                "spec.provider.aws.auth.secretName"
            )
        return AwsAccessKeys(key, secret, environment.get("AWS_SESSION_TOKEN"))
    token = None if auth.session_token_key is None else _entry(login.secret, auth.session_token_key)
    return AwsAccessKeys(
        _entry(login.secret, auth.access_key_id_key), _entry(login.secret, auth.secret_access_key_key), token
    )


def _entry(secret: Mapping[str, bytes], key: str) -> str:
    try:
        text = secret.get(key, b"").decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise _missing(f"the Secret of spec.provider.aws.auth.secretName has no usable data key {key!r}")
    return text


def _missing(message: str) -> PermanentError:
    return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)


def _aws(provider: ProviderSpec, login: Login, environment: Environment, on_call: CallObserver) -> Provider:
    # The SDK is imported when first used: it takes 125 ms and 22 MB.
    from secret_manager_controller.providers.aws import AwsProvider  # noqa: PLC0415

    assert provider.aws is not None  # The spec's rules say so.
    return AwsProvider(
        region=provider.aws.region,
        login=aws_login(provider.aws.auth, login, environment),
        endpoint_url=AwsEndpoints(
            secretsmanager=environment.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or environment.get("AWS_ENDPOINT_URL"),
            sts=environment.get("AWS_ENDPOINT_URL_STS") or environment.get("AWS_ENDPOINT_URL"),
        ),
        on_call=on_call,
    )


def _gcp(provider: ProviderSpec, login: Login, environment: Environment, on_call: CallObserver) -> Provider:
    # The SDK is imported when first used: it takes 260 ms and 24 MB.
    from secret_manager_controller.providers.gcp import GcpProvider  # noqa: PLC0415

    assert provider.gcp is not None  # The spec's rules say so.
    return GcpProvider(**gcp_options(provider.gcp, login.secret, environment), on_call=on_call)


def _azure(provider: ProviderSpec, login: Login, environment: Environment, on_call: CallObserver) -> Provider:
    # The SDKs are imported when first used: they take 260 ms and 15 MB.
    from secret_manager_controller.providers.azure import AzureProvider  # noqa: PLC0415

    assert provider.azure is not None  # The spec's rules say so.
    return AzureProvider(**azure_options(provider.azure, login.secret, environment), on_call=on_call)


PROVIDERS: Mapping[str, ProviderFactory] = {"aws": _aws, "gcp": _gcp, "azure": _azure}
"""By `spec.provider.type`."""
