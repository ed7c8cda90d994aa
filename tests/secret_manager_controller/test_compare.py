"""The comparison reads a value only if this process does not know its version."""

import pytest

from secret_manager_controller.compare import VersionMemory, compare
from secret_manager_controller.model.desired import DesiredSecret, DesiredState
from secret_manager_controller.model.observed import RemoteSecret
from secret_manager_controller.model.plan import Verdict
from secret_manager_controller.model.secret import SecretValue
from secret_manager_controller.testing.store import FakeProvider, FakeStore

DESIRED = DesiredState({"db": DesiredSecret("db", SecretValue(b"git"), "h")})


@pytest.fixture
def store():
    return FakeStore()


async def verdicts(store, memory, *, version="1", recorded=True):
    return await compare(
        [RemoteSecret("db", version, None)],
        DESIRED,
        provider=FakeProvider(store),
        store="s",
        memory=memory,
        remembered_ok={"db"} if recorded else set(),
    )


def reads(store):
    return [call.names for call in store.calls if call.operation == "read"]


@pytest.mark.parametrize(("stored", "equal"), [(b"git", True), (b"other", False)], ids=["equal", "different"])
async def test_an_unknown_version_is_read_once_and_then_known(store, stored, equal):
    memory = VersionMemory()
    version = store.put_by_hand("db", stored)
    for _ in range(2):
        assert await verdicts(store, memory, version=version) == {"db": Verdict(version, equal=equal)}
    assert reads(store) == [("db",)]


async def test_a_version_that_moved_is_always_read_since_a_listing_may_be_stale(store):
    memory = VersionMemory()
    first = store.put_by_hand("db", b"git")
    memory.remember("s", "db", first, SecretValue(b"git"))
    second = store.put_by_hand("db", b"hand")
    assert await verdicts(store, memory, version=first, recorded=False) == {"db": Verdict(second, equal=False)}


async def test_a_secret_that_vanished_has_no_verdict(store):
    assert await verdicts(store, VersionMemory()) == {}


async def test_a_forgotten_version_is_read_again(store):
    memory = VersionMemory()
    version = store.put_by_hand("db", b"git")
    memory.remember("s", "db", version, SecretValue(b"git"))
    memory.forget("s", "db", version)
    memory.forget("s", "db", version)
    await verdicts(store, memory, version=version)
    assert reads(store) == [("db",)]


def test_the_memory_is_bounded_keeps_stores_apart_and_no_plaintext():
    memory = VersionMemory(capacity=2)
    for version in ("1", "2", "3"):
        memory.remember("s", "db", version, SecretValue(b"canary"))
    value = SecretValue(b"canary")
    assert [memory.equals("s", "db", version, value) for version in ("1", "2", "3")] == [None, True, True]
    assert memory.equals("another", "db", "3", value) is None
    assert memory.equals("s", "db", "3", SecretValue(b"other")) is False
    assert b"canary" not in b"".join(memory._digests.values())
