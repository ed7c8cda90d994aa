"""Carrying out a plan: what is written, what is recorded, what a failure stops."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.apply import PARALLEL_WRITES, StoreSession, apply
from secret_manager_controller.compare import VersionMemory
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.inventory import InventoryEntry
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret
from secret_manager_controller.model.plan import Adopt, Conflict, Create, Plan, Prune, Unchanged, Update
from secret_manager_controller.model.secret import NOT_COMPARED, SecretValue
from secret_manager_controller.testing.store import FakeProvider, FakeStore

ME = OwnerMark("cluster", "team/config")
DENIED = PermanentError(Reason.STORE_ACCESS_DENIED, "denied")


def wanted(name, value=b"new"):
    return DesiredSecret(name, SecretValue(value), f"hash-{name}")


class Bench:
    """A store, and what applies plans to it."""

    def __init__(self, fence=None):
        self.store = FakeStore()
        self.memory = VersionMemory()
        self.fence = fence or SoleMemberFence()

    def stored(self, name, value=b"old", mark=ME):
        return RemoteSecret(name, self.store.put_by_hand(name, value, mark=mark), mark)

    async def apply(self, *actions, inventory=None, **plan):
        session = StoreSession(FakeProvider(self.store), "s", ME, "main@sha1:abc", self.fence, self.memory)
        return await apply(Plan(actions, **plan), inventory or {}, session)


async def test_every_kind_of_action_is_carried_out_and_recorded():
    bench = Bench()
    update, adopt, mark_only, prune = (
        bench.stored(n, mark=m) for n, m in [("u", ME), ("a", None), ("m", None), ("p", ME)]
    )
    report = await bench.apply(
        Create(wanted("c")),
        Update(wanted("u"), update),
        Adopt(wanted("a"), adopt, write=True),
        Adopt(wanted("m", b"old"), mark_only, write=False),
        Unchanged("x", "v7", "hash-x"),
        Prune(prune),
        Conflict("k", "not ours"),
    )
    assert bench.store.values() == {"c": b"new", "u": b"new", "a": b"new", "m": b"old"}
    assert {bench.store.mark(name) for name in "cuam"} == {ME}
    current = {name: bench.store.secrets[name].current for name in "cuam"}
    assert report.inventory == {
        "a": InventoryEntry("a", current["a"], "hash-a"),
        "c": InventoryEntry("c", current["c"], "hash-c"),
        "m": InventoryEntry("m", current["m"], "hash-m"),
        "u": InventoryEntry("u", current["u"], "hash-u"),
        "x": InventoryEntry("x", "v7", "hash-x"),
    }
    assert (report.created, report.updated, report.adopted, report.pruned) == (("c",), ("u",), ("a", "m"), ("p",))
    assert (report.synced, report.wanted, report.changed, report.complete) == (5, 6, True, False)


async def test_options_are_set_and_the_value_keeps_its_version_and_its_record():
    bench = Bench()
    current = bench.stored("o")
    report = await bench.apply(Update(wanted("o"), current, write=False, recorded="hash-before"))
    assert [call.operation for call in bench.store.writes()] == ["adopt"]
    assert report.inventory == {"o": InventoryEntry("o", current.version, "hash-before")}
    assert (report.updated, report.synced, report.complete) == (("o",), 1, True)


async def test_what_was_written_is_remembered_so_that_it_needs_no_read():
    bench = Bench()
    report = await bench.apply(Create(wanted("c")))
    assert bench.memory.equals("s", "c", report.inventory["c"].version, SecretValue(b"new")) is True


async def test_an_adopted_value_that_was_not_compared_is_not_recorded_as_equal():
    bench = Bench()
    report = await bench.apply(Adopt(wanted("m"), bench.stored("m", mark=None), write=False, compared=False))
    assert report.inventory["m"].source_hash == NOT_COMPARED


async def test_one_secrets_refusal_does_not_stop_the_others_but_holds_back_every_prune():
    bench = Bench()
    names = [f"n{number:02}" for number in range(50)]
    bench.store.fail("create", DENIED, times=25)
    leaving = bench.stored("old")
    report = await bench.apply(*(Create(wanted(name)) for name in names), Prune(leaving), inventory={
        "old": InventoryEntry("old", leaving.version, "h"),
    })  # fmt: skip
    assert (report.synced, report.wanted, len(report.failures), report.left) == (25, 50, 25, 1)
    assert "old" in bench.store.values()
    assert "old" in report.inventory
    assert len(report.inventory) == 26
    retried = await bench.apply(*(Create(wanted(failure.name)) for failure in report.failures))
    assert retried.complete
    assert set(bench.store.values()) == {*names, "old"}


@pytest.mark.parametrize("reason", [Reason.STORE_UNAVAILABLE, Reason.RATE_LIMITED, Reason.CREDENTIALS_UNAVAILABLE])
async def test_a_failure_of_the_whole_store_begins_no_further_write(reason):
    bench = Bench()
    bench.store.fail("create", RetryableError(reason, "down", retry_after=9), times=1000)
    report = await bench.apply(*(Create(wanted(f"n{number:03}")) for number in range(100)))
    assert len(bench.store.writes()) <= PARALLEL_WRITES
    assert len(report.failures) + report.left == 100
    assert report.worst_failure.retry_after == 9
    assert not report.changed


async def test_a_write_that_failed_keeps_its_old_record_and_its_version_is_forgotten():
    bench = Bench()
    current = bench.stored("u")
    bench.memory.remember("s", "u", current.version, SecretValue(b"old"))
    bench.store.put_by_hand("u", b"somebody was faster")
    before = InventoryEntry("u", current.version, "hash-before")
    report = await bench.apply(Update(wanted("u"), current), inventory={"u": before})
    assert report.inventory == {"u": before}
    assert report.worst_failure.reason is Reason.STORE_CHANGED
    assert bench.memory.equals("s", "u", current.version, SecretValue(b"old")) is None
    assert bench.store.values() == {"u": b"somebody was faster"}


async def test_a_lost_answer_makes_no_second_version():
    bench = Bench()
    bench.store.fail("create", commit=True)
    first = await bench.apply(Create(wanted("c")))
    assert len(first.failures) == 1
    second = await bench.apply(Create(wanted("c")))
    assert second.complete
    assert bench.store.versions("c") == 1


async def test_a_revoked_fence_writes_nothing():
    bench = Bench()
    bench.fence.revoke()
    with pytest.raises(OwnershipLost):
        await bench.apply(*(Create(wanted(f"n{number}")) for number in range(20)))
    assert bench.store.writes() == []


class CountedFence:
    """Lets a number of effects pass."""

    def __init__(self, passes):
        self.passes = passes

    def check(self, margin):
        assert margin > 0
        if self.passes == 0:
            raise OwnershipLost("lost")
        self.passes -= 1


@given(passes=st.integers(0, 12), writes=st.integers(1, 12))
def test_ownership_lost_in_the_middle_stops_at_once_and_reports_nothing(passes, writes):
    bench = Bench(CountedFence(passes))
    run = bench.apply(*(Create(wanted(f"n{number:02}")) for number in range(writes)))
    if passes >= writes:
        assert asyncio.run(run).complete
    else:
        with pytest.raises(OwnershipLost):
            asyncio.run(run)
    assert len(bench.store.writes()) == min(passes, writes)


async def test_no_more_than_eight_writes_are_under_way_at_a_time():
    bench = Bench()
    gate = bench.store.hold("create")
    running = asyncio.create_task(bench.apply(*(Create(wanted(f"n{number:02}")) for number in range(20))))
    await asyncio.sleep(0.01)
    bench.fence.revoke()
    gate.set()
    with pytest.raises(OwnershipLost):
        await running
    assert len(bench.store.writes()) == PARALLEL_WRITES


async def test_an_unexpected_error_is_raised_when_the_writes_under_way_have_ended():
    bench = Bench()

    class Broken(FakeProvider):
        async def create(self, secret, **rest):
            if secret.name == "n00":
                raise ZeroDivisionError
            return await super().create(secret, **rest)

    plan = Plan(tuple(Create(wanted(f"n{number:02}")) for number in range(20)))
    gate = bench.store.hold("create")
    session = StoreSession(Broken(bench.store), "s", ME, "main@sha1:abc", bench.fence, bench.memory)
    running = asyncio.create_task(apply(plan, {}, session))
    await asyncio.sleep(0.01)
    assert not running.done()
    gate.set()
    with pytest.raises(ZeroDivisionError):
        await running
    assert len(bench.store.writes()) == PARALLEL_WRITES - 1
