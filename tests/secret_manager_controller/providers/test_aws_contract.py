"""AWS Secrets Manager keeps the provider contract."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.aws import AwsDeclared, AwsProvider
from secret_manager_controller.providers.aws_marks import mark_of, tags_of
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.contract import ProviderContract, Subject
from secret_manager_controller.testing.contract_subject import DECLARED, LABEL


class AwsControl:
    """The suite's hands in the AWS test server."""

    def __init__(self, server: AwsServer) -> None:
        self._server = server

    def values(self) -> Mapping[str, bytes]:
        return self._server.values()

    def versions(self, name: str) -> int:
        return self._server.versions(name)

    def mark(self, name: str) -> OwnerMark | None:
        return mark_of([{"Key": key, "Value": value} for key, value in self._server.tags(name).items()])

    def labels(self, name: str) -> Mapping[str, str]:
        return self._server.tags(name)

    def set_label(self, name: str, key: str, value: str) -> None:
        self._server.client().tag_resource(SecretId=name, Tags=[{"Key": key, "Value": value}])

    def put_by_hand(self, name: str, value: bytes, *, mark: OwnerMark | None = None) -> object:
        return self._server.put_by_hand(name, value, tags=_tags(mark))

    def create_empty(self, name: str, *, mark: OwnerMark | None = None) -> None:
        self._server.create_empty(name, tags=_tags(mark))

    def schedule_deletion(self, name: str) -> None:
        self._server.schedule_deletion(name)

    def destroy(self, name: str) -> None:
        self._server.destroy(name)

    def writes(self) -> Sequence[Call]:
        return self._server.writes()

    def fail_requests(self, request: str, *, times: int, commit: bool) -> None:
        self._server.fail(request, "InternalServiceError", 500, times=times, commit=commit)

    def clear_faults(self) -> None:
        self._server.clear_faults()


class TestAwsProvider(ProviderContract):
    @pytest.fixture
    async def subject(self, aws: AwsServer) -> AsyncIterator[Subject]:
        provider, declaring = (
            AwsProvider(
                region=aws.region,
                login=aws.access_keys,
                endpoint_url=aws.endpoint_url,
                declared=AwsDeclared(tags=tags),
                budgets=Budgets(),
                retries=RetryPolicy(first_wait=0.0, longest_wait=0.0),
            )
            for tags in ({}, {LABEL: DECLARED})
        )
        yield Subject(
            provider,
            AwsControl(aws),
            requests={
                "create": ["CreateSecret"],
                "update": ["PutSecretValue", "UpdateSecretVersionStage"],
                "adopt": ["TagResource"],
                "delete": ["DeleteSecret"],
            },
            declaring=declaring,
        )
        await provider.aclose()
        await declaring.aclose()


def _tags(mark: OwnerMark | None) -> Mapping[str, str]:
    return {} if mark is None else {tag["Key"]: tag["Value"] for tag in tags_of(mark)}
