"""One test server of each store for all tests of this directory, emptied before each."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from secret_manager_controller.providers.aws import AwsProvider, AwsQuotas
from secret_manager_controller.providers.azure import AzureProvider, AzureQuotas
from secret_manager_controller.providers.azure_shared import SharedVaults
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.gcp import GcpProvider, GcpQuotas
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.azure import AzureServer
from secret_manager_controller.testing.gcp import GcpServer


@pytest.fixture(scope="session")
def running_aws() -> Iterator[AwsServer]:
    with AwsServer.start() as server:
        yield server


@pytest.fixture
def aws(running_aws: AwsServer) -> AwsServer:
    running_aws.reset()
    running_aws.stale_listing(False)
    return running_aws


@pytest.fixture
def client(aws: AwsServer) -> Any:
    """Return a plain client of the SDK, for what the server's controls do not show."""
    return aws.client()


@pytest.fixture
async def make_provider(aws: AwsServer) -> AsyncIterator[Callable[..., AwsProvider]]:
    """Return a function that makes providers for the server, which wait for nothing between attempts."""
    made: list[AwsProvider] = []

    def make(**options: Any) -> AwsProvider:
        standard = {
            "region": aws.region,
            "login": aws.access_keys,
            "endpoint_url": aws.endpoint_url,
            "budgets": Budgets(),
            "quotas": AwsQuotas(reads=100_000, writes=100_000),
            "retries": RetryPolicy(first_wait=0.0, longest_wait=0.0),
        }
        made.append(AwsProvider(**(standard | options)))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
def provider(make_provider: Callable[..., AwsProvider]) -> AwsProvider:
    return make_provider()


@pytest.fixture(scope="session")
def running_gcp() -> Iterator[GcpServer]:
    with GcpServer.start() as server:
        yield server


@pytest.fixture
def gcp(running_gcp: GcpServer) -> GcpServer:
    running_gcp.reset()
    return running_gcp


@pytest.fixture
async def make_gcp(gcp: GcpServer) -> AsyncIterator[Callable[..., GcpProvider]]:
    """Return a function that makes providers for the server, which wait for nothing between attempts."""
    made: list[GcpProvider] = []

    def make(**options: Any) -> GcpProvider:
        standard = {
            "project": gcp.project,
            "login": gcp.key,
            "endpoints": gcp.endpoints,
            "budgets": Budgets(),
            "quotas": GcpQuotas(reads=100_000, writes=100_000),
            "retries": RetryPolicy(first_wait=0.0, longest_wait=0.0),
        }
        made.append(GcpProvider(**(standard | options)))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
def gcp_provider(make_gcp: Callable[..., GcpProvider]) -> GcpProvider:
    return make_gcp()


@pytest.fixture(scope="session")
def running_azure() -> Iterator[AzureServer]:
    with AzureServer.start() as server:
        yield server


@pytest.fixture
def azure(running_azure: AzureServer) -> AzureServer:
    running_azure.reset()
    return running_azure


@pytest.fixture
async def make_azure(azure: AzureServer) -> AsyncIterator[Callable[..., AzureProvider]]:
    """Return a function that makes providers for the server, which wait for nothing between attempts."""
    made: list[AzureProvider] = []
    budgets = Budgets()

    def make(**options: Any) -> AzureProvider:
        standard = {
            "vault": azure.vault,
            "login": azure.client_secret,
            "endpoints": azure.endpoints,
            "budgets": budgets,
            "quotas": AzureQuotas(all=1_000_000, sets=1_000_000),
            "shared": SharedVaults(),
            "retries": RetryPolicy(first_wait=0.0, longest_wait=0.0),
        }
        made.append(AzureProvider(**(standard | options)))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
def azure_provider(make_azure: Callable[..., AzureProvider]) -> AzureProvider:
    return make_azure()
