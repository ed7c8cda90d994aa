"""Azure Key Vault keeps the provider contract."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.azure import AzureDeclared, AzureProvider
from secret_manager_controller.providers.azure_marks import mark_of, tags_of
from secret_manager_controller.testing.azure import AzureServer
from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.contract import Lacks, ProviderContract, Subject
from secret_manager_controller.testing.contract_subject import DECLARED, LABEL


class AzureControl:
    """The suite's hands in the Azure test server."""

    def __init__(self, server: AzureServer) -> None:
        self._server = server

    def values(self) -> Mapping[str, bytes]:
        return self._server.values()

    def versions(self, name: str) -> int:
        return self._server.versions(name)

    def mark(self, name: str) -> OwnerMark | None:
        return mark_of(self._server.tags(name))

    def put_by_hand(self, name: str, value: bytes, *, mark: OwnerMark | None = None) -> object:
        return self._server.put_by_hand(name, value, tags=_tags(mark))

    def create_empty(self, name: str, *, mark: OwnerMark | None = None) -> None:
        """Create a secret without a usable version: Azure has none without any."""
        self._server.put_by_hand(name, b"unusable", tags=_tags(mark))
        self._server.disable(name)

    def labels(self, name: str) -> Mapping[str, str]:
        return self._server.tags(name)

    def set_label(self, name: str, key: str, value: str) -> None:
        self._server.change(name, tags={**self._server.tags(name), key: value})

    def schedule_deletion(self, name: str) -> None:
        self._server.schedule_deletion(name)

    def destroy(self, name: str) -> None:
        self._server.destroy(name)

    def writes(self) -> Sequence[Call]:
        return self._server.writes()

    def fail_requests(self, request: str, *, times: int, commit: bool) -> None:
        self._server.fail(request, "InternalServerError", 500, times=times, commit=commit)

    def clear_faults(self) -> None:
        self._server.clear_faults()


class TestAzureProvider(ProviderContract):
    """Azure has no compare-and-swap; the cases for it hold for the writers of one process, see `test_azure`."""

    @pytest.fixture
    async def subject(self, azure: AzureServer, make_azure: Callable[..., AzureProvider]) -> Subject:
        return Subject(
            make_azure(),
            AzureControl(azure),
            requests={
                "create": ["SetSecret"],
                "update": ["SetSecret"],
                "adopt": ["UpdateSecret"],
                "delete": ["DeleteSecret"],
            },
            largest=25 * 1024,
            page=25,
            lacks=frozenset({Lacks.BINARY}),
            declaring=make_azure(declared=AzureDeclared(tags={LABEL: DECLARED})),
        )


def _tags(mark: OwnerMark | None) -> Mapping[str, str]:
    return {} if mark is None else tags_of(mark, write=None, beside=None)
