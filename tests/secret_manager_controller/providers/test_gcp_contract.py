"""Google Secret Manager keeps the provider contract."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.gcp import GcpProvider, GcpQuotas
from secret_manager_controller.providers.gcp_marks import annotations_of, labels_of, mark_of
from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.contract import Lacks, ProviderContract, Subject
from secret_manager_controller.testing.contract_subject import DECLARED, LABEL
from secret_manager_controller.testing.gcp import GcpServer


class GcpControl:
    """The suite's hands in the Google test server."""

    def __init__(self, server: GcpServer) -> None:
        self._server = server

    def values(self) -> Mapping[str, bytes]:
        return self._server.values()

    def versions(self, name: str) -> int:
        return self._server.versions(name)

    def mark(self, name: str) -> OwnerMark | None:
        return mark_of(self._server.labels(name), self._server.annotations(name))

    def labels(self, name: str) -> Mapping[str, str]:
        return self._server.labels(name)

    def set_label(self, name: str, key: str, value: str) -> None:
        labels, annotations = self._server.labels(name), self._server.annotations(name)
        self._server.change_labels(name, labels={**labels, key: value}, annotations=annotations)

    def put_by_hand(self, name: str, value: bytes, *, mark: OwnerMark | None = None) -> object:
        return self._server.put_by_hand(name, value, **_metadata(mark))

    def create_empty(self, name: str, *, mark: OwnerMark | None = None) -> None:
        self._server.create_empty(name, **_metadata(mark))

    def schedule_deletion(self, name: str) -> None:
        raise NotImplementedError("Google Secret Manager deletes at once")

    def destroy(self, name: str) -> None:
        self._server.destroy(name)

    def writes(self) -> Sequence[Call]:
        return self._server.writes()

    def fail_requests(self, request: str, *, times: int, commit: bool) -> None:
        self._server.fail(request, "UNAVAILABLE", times=times, commit=commit)

    def clear_faults(self) -> None:
        self._server.clear_faults()


class TestGcpProvider(ProviderContract):
    @pytest.fixture(params=[None, "europe-west1"], ids=["global", "regional"])
    def location(self, request: pytest.FixtureRequest, gcp: GcpServer) -> str | None:
        gcp.location = request.param
        return request.param

    @pytest.fixture
    async def subject(self, gcp: GcpServer, location: str | None) -> AsyncIterator[Subject]:
        provider, declaring = (
            GcpProvider(
                project=gcp.project,
                location=location,
                login=gcp.key,
                endpoints=gcp.endpoints,
                labels=labels,
                budgets=Budgets(),
                quotas=GcpQuotas(reads=100_000, writes=100_000),
                retries=RetryPolicy(first_wait=0.0, longest_wait=0.0),
            )
            for labels in (None, {LABEL: DECLARED})
        )
        yield Subject(
            provider,
            GcpControl(gcp),
            requests={
                "create": ["CreateSecret", "AddSecretVersion"],
                "update": ["UpdateSecret", "AddSecretVersion"],
                "adopt": ["UpdateSecret"],
                "delete": ["DeleteSecret"],
            },
            lacks=frozenset({Lacks.RECOVERY}),
            declaring=declaring,
        )
        await provider.aclose()
        await declaring.aclose()
        gcp.location = None


def _metadata(mark: OwnerMark | None) -> dict[str, Mapping[str, str]]:
    return {} if mark is None else {"labels": labels_of(mark), "annotations": annotations_of(mark)}
