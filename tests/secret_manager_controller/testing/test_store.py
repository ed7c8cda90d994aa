"""The fake keeps the provider contract, and fails on demand."""

import asyncio

import pytest

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.testing.contract import ProviderContract, Subject
from secret_manager_controller.testing.contract_subject import DECLARED, LABEL, ME, REVISION, desired
from secret_manager_controller.testing.store import FakeProvider, FakeStore


class FakeControl(FakeStore):
    """The suite's hands in the fake store."""

    def fail_requests(self, request: str, *, times: int, commit: bool) -> None:
        self.fail(request, times=times, commit=commit)


class TestFakeProvider(ProviderContract):
    @pytest.fixture
    def subject(self) -> Subject:
        store = FakeControl()
        return Subject(
            FakeProvider(store),
            store,
            requests={name: [name] for name in ("create", "update", "adopt", "delete")},
            declaring=FakeProvider(store, labels={LABEL: DECLARED}),
        )


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


async def _create(provider: FakeProvider, name: str = "a") -> None:
    await provider.create(desired(name, b"v"), mark=ME, revision=REVISION, fence=SoleMemberFence())


async def test_the_log_tells_who_did_what_and_what_came_of_it(store: FakeStore) -> None:
    store.put_by_hand("taken", b"v")
    await _create(FakeProvider(store, who="one"))
    with pytest.raises(PermanentError):
        await _create(FakeProvider(store, who="two"), "taken")
    told = [(call.who, call.operation, call.names, call.code, call.committed) for call in store.calls]
    assert told == [("one", "create", ("a",), "OK", True), ("two", "create", ("taken",), "Conflict", False)]


async def test_a_fault_meets_as_many_calls_as_it_says(store: FakeStore) -> None:
    provider = FakeProvider(store)
    store.fail("create", RetryableError(Reason.RATE_LIMITED, "slower"), times=2)
    for _ in range(2):
        with pytest.raises(RetryableError, match="slower"):
            await _create(provider)
    await _create(provider)
    assert [call.committed for call in store.writes()] == [False, False, True]


async def test_a_lost_answer_leaves_the_write_done(store: FakeStore) -> None:
    store.fail("create", commit=True)
    with pytest.raises(RetryableError):
        await _create(FakeProvider(store))
    assert store.values() == {"a": b"v"}
    assert [(call.code, call.committed) for call in store.calls] == [("StoreUnavailable", True)]


async def test_held_calls_take_effect_when_they_are_let_go(store: FakeStore) -> None:
    let_go = store.hold("create")
    task = asyncio.create_task(_create(FakeProvider(store)))
    await asyncio.sleep(0)
    assert store.values() == {}
    let_go.set()
    await task
    assert store.values() == {"a": b"v"}


async def test_a_closed_provider_says_so(store: FakeStore) -> None:
    provider = FakeProvider(store)
    await provider.aclose()
    assert provider.closed
