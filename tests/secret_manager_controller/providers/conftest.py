"""One AWS test server for all tests of this directory, emptied before each."""

from collections.abc import Iterator

import pytest

from secret_manager_controller.testing.aws import AwsServer


@pytest.fixture(scope="session")
def running_aws() -> Iterator[AwsServer]:
    with AwsServer.start() as server:
        yield server


@pytest.fixture
def aws(running_aws: AwsServer) -> AwsServer:
    running_aws.reset()
    running_aws.stale_listing(False)
    return running_aws
