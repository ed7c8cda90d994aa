"""Which providers there are: a new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from secret_manager_controller.errors import ConfigError
from secret_manager_controller.model.spec import Provider as ProviderSpec
from secret_manager_controller.providers.aws_settings import aws_options
from secret_manager_controller.providers.azure_settings import azure_options
from secret_manager_controller.providers.gcp_settings import gcp_options
from secret_manager_controller.providers.protocol import CallObserver, Provider
from secret_manager_controller.providers.settings import Environment


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
            place = azure.vault_name.lower()  # A host's name, whose case says nothing.
        case _:
            raise ConfigError("spec.provider must have one block, of its type's name")
    return f"{provider.type}/{place}"


def _aws(provider: ProviderSpec, login: Login, environment: Environment, on_call: CallObserver) -> Provider:
    # The SDK is imported when first used: it takes 125 ms and 22 MB.
    from secret_manager_controller.providers.aws import AwsProvider  # noqa: PLC0415

    assert provider.aws is not None  # The spec's rules say so.
    return AwsProvider(**aws_options(provider.aws, login.secret, environment), on_call=on_call)


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
