"""What a replica works on follows the shards that it owns."""

import asyncio

import pytest

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.controller.cache import ObjectCache, record_of
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.ownership import OwnedWork
from secret_manager_controller.controller.queue import WorkQueue

SHARDS = {"red": 1, "blue": 2}


class Bench:
    def __init__(self):
        self.queue = WorkQueue(clock=lambda: 0.0)
        self.cache = ObjectCache(SHARDS.__getitem__)
        self.metrics = Metrics()
        self.distrusted = []
        self.dropped = []
        self.work = OwnedWork(
            cache=self.cache,
            queue=self.queue,
            metrics=self.metrics,
            distrust=lambda: self.distrusted.append(self.queued()),
            dropped=self.dropped.append,
        )
        self.turns = []
        self.go_on = asyncio.Event()
        for key in ("red/a", "red/b", "blue/a"):
            namespace, name = key.split("/")
            self.cache.put(record_of({"metadata": {"namespace": namespace, "name": name, "uid": key}}))

    def queued(self):
        return sorted(key for key, _ in self.queue.waiting())

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)

    def turn(self, key):
        async def wait(fence):
            self.turns.append((key, "begun"))
            try:
                await self.go_on.wait()
            finally:
                self.turns.append((key, "ended"))

        return asyncio.create_task(self.work.turn(key, wait))


@pytest.fixture
async def bench():
    return Bench()


async def test_a_shard_that_is_gained_queues_all_of_its_objects(bench):
    bench.work.on_gained(1, SoleMemberFence())
    assert bench.queued() == ["red/a", "red/b"]
    assert (bench.work.owns("red/new"), bench.work.owns("blue/a")) == (True, False)
    assert bench.distrusted == [[]]  # Before anything of it could be worked on.


async def test_a_turn_has_the_fence_of_its_shard(bench):
    red, blue, seen = SoleMemberFence(), SoleMemberFence(), []
    bench.work.on_gained(1, red)
    bench.work.on_gained(2, blue)

    async def see(fence):
        seen.append(fence)

    await bench.work.turn("blue/a", see)
    await bench.work.turn("red/a", see)
    assert seen == [blue, red]


async def test_a_key_of_another_replica_is_dropped(bench):
    bench.queue.retry("red/a")
    await bench.turn("red/a")
    assert (bench.turns, bench.queue._due) == ([], {})


async def test_a_shard_that_is_lost_drops_its_keys_and_cuts_off_its_turns(bench):
    bench.work.on_gained(1, SoleMemberFence())
    bench.work.on_gained(2, SoleMemberFence())
    red, blue = bench.turn("red/a"), bench.turn("blue/a")
    await asyncio.sleep(0.01)
    bench.work.on_lost(1)
    assert (bench.queued(), sorted(bench.dropped)) == (["blue/a"], ["red/a", "red/b"])
    await red
    assert bench.turns == [("red/a", "begun"), ("blue/a", "begun"), ("red/a", "ended")]
    bench.go_on.set()
    await blue


async def test_a_shard_that_drains_begins_nothing_and_ends_what_is_under_way(bench):
    bench.work.on_gained(1, SoleMemberFence())
    turn = bench.turn("red/a")
    await asyncio.sleep(0.01)
    drain = asyncio.create_task(bench.work.drain(1))
    await asyncio.sleep(0.01)
    assert (bench.queued(), bench.work.owns("red/a"), drain.done()) == ([], False, False)
    bench.go_on.set()
    await drain
    assert bench.turns == [("red/a", "begun"), ("red/a", "ended")]
    await turn


async def test_a_drain_waits_for_a_turn_that_was_cut_off_but_ends_late(bench):
    """A request in a thread cannot be stopped: the shard must not be released before it has ended."""
    release = asyncio.Event()

    async def stubborn(fence):
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    bench.work.on_gained(1, SoleMemberFence())
    turn = asyncio.create_task(bench.work.turn("red/a", stubborn))
    await asyncio.sleep(0.01)
    drain = asyncio.create_task(bench.work.drain(1))
    bench.work.on_lost(1)
    await asyncio.sleep(0.01)
    assert not drain.done()
    release.set()
    await drain
    await turn


async def test_a_shard_that_is_gained_again_is_whole_again(bench):
    bench.work.on_gained(1, SoleMemberFence())
    await bench.work.drain(1)
    bench.work.on_lost(1)
    assert bench.queued() == []
    bench.work.on_gained(1, SoleMemberFence())
    assert bench.queued() == ["red/a", "red/b"]


async def test_a_worker_that_is_cancelled_ends_with_its_turn(bench):
    bench.work.on_gained(1, SoleMemberFence())
    turn = bench.turn("red/a")
    await asyncio.sleep(0.01)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert bench.turns == [("red/a", "begun"), ("red/a", "ended")]


async def test_what_a_turn_raises_is_raised(bench):
    async def fail(fence):
        raise OwnershipLost("lost")

    bench.work.on_gained(1, SoleMemberFence())
    with pytest.raises(OwnershipLost):
        await bench.work.turn("red/a", fail)


async def test_the_series_of_a_shard_go_with_it(bench):
    bench.go_on.set()
    bench.work.on_gained(1, SoleMemberFence())
    bench.metrics.set_managed("red/a", 5)
    await bench.turn("red/a")
    name = "secret_manager_shard_reconcile_duration_seconds_count"
    assert (bench.sample(name, shard="1"), bench.sample("secret_manager_secrets_managed")) == (1, 5)
    bench.work.on_lost(1)
    assert (bench.sample(name, shard="1"), bench.sample("secret_manager_secrets_managed")) == (None, 0)
