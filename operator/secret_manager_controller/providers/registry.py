"""Which providers there are: a new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.secret import SecretValue
from secret_manager_controller.model.spec import AwsAuthType, ProviderSpec
from secret_manager_controller.providers.protocol import CallObserver, Provider

Environment = Mapping[str, str]
"""The process's environment variables; each factory reads only those that are documented for its provider."""


@dataclass(frozen=True, slots=True)
class Login:
    """What one object brings along: the data of its credential Secret, or None if its spec names none."""

    secret: Mapping[str, bytes] | None = field(repr=False)


ProviderFactory = Callable[[ProviderSpec, Login, Environment, CallObserver], Provider]
"""Makes a provider; raises PermanentError (CredentialsUnavailable) that says what is missing."""


def store_name(provider: ProviderSpec) -> str:
    """Return what tells this store from every other one."""
    return f"{provider.type}:{provider.aws.region if provider.aws is not None else ''}"


def _aws(provider: ProviderSpec, login: Login, environment: Environment, on_call: CallObserver) -> Provider:
    # The SDK is imported when first used: it takes 125 ms and 22 MB.
    from secret_manager_controller.providers.aws import AwsProvider  # noqa: PLC0415

    assert provider.aws is not None  # The spec is normalised.
    return AwsProvider(
        region=provider.aws.region,
        login=_aws_login(provider, login, environment),
        endpoint_url=environment.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or environment.get("AWS_ENDPOINT_URL"),
        on_call=on_call,
    )
