"""Series by shard are made when they are scraped."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from lease_sharding.context import Counters
from lease_sharding.observe import SessionState
from lease_sharding.snapshot import MemberRow
from secret_manager_controller.controller.cache import ObjectCache, record_of
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.shard_metrics import ShardCollector


def row(name, state, renewed_ago=0.0):
    return MemberRow(name, state, "s", None, renewed_ago, 0, 0)


class FakeMember:
    """What a collector asks of a member."""

    def __init__(self):
        self.name = "smc-0"
        self.session_id = "s"
        self.owned = frozenset({1, 2})
        self.counters = Counters(handovers=3, takeovers=1, lost=2, lapses=1, writes=40)
        self.rows = [row("smc-0", SessionState.LIVE, 1.5), row("smc-1", SessionState.LAPSED)]

    def overdue(self):
        return (7,)

    def snapshot(self):
        return SimpleNamespace(members=self.rows)


class Bench:
    def __init__(self):
        self.now = 0.0
        self.member = FakeMember()
        self.queue = WorkQueue(clock=lambda: self.now)
        self.cache = ObjectCache({"red": 1, "blue": 2, "grey": 3}.__getitem__)
        self.registry = CollectorRegistry()
        self.registry.register(ShardCollector(member=self.member, cache=self.cache, queue=self.queue))
        for key in ("red/a", "red/b", "blue/a", "grey/a"):
            namespace, name = key.split("/")
            self.cache.put(record_of({"metadata": {"namespace": namespace, "name": name}}))

    def sample(self, name, **labels):
        return self.registry.get_sample_value(f"secret_manager_{name}", labels)


@pytest.fixture
def bench():
    return Bench()


def test_the_group_is_told_as_this_replica_sees_it(bench):
    names = ("shards_owned", "shards_unowned", "members", "session_age_seconds")
    assert [bench.sample(name) for name in names] == [2, 1, 1, 1.5]


def test_what_has_happened_is_counted(bench):
    names = ("shard_handovers", "shard_takeovers", "shard_losses", "session_lapses", "lease_writes")
    assert [bench.sample(f"{name}_total") for name in names] == [3, 1, 2, 1, 40]


def test_a_replica_without_a_session_has_no_age(bench):
    bench.member.session_id = None
    assert bench.sample("session_age_seconds") is None


def test_each_owned_shard_tells_its_objects_and_what_waits(bench):
    bench.queue.add("red/a")
    bench.now = 4.0
    bench.queue.add("red/b")
    bench.now = 5.0
    assert [bench.sample("shard_objects", shard=shard) for shard in "123"] == [2, 1, None]
    assert [bench.sample("shard_queue_depth", shard=shard) for shard in "123"] == [2, 0, None]
    assert [bench.sample("shard_oldest_key_age_seconds", shard=shard) for shard in "123"] == [5, 0, None]


def test_a_shard_that_is_lost_has_no_series_any_more(bench):
    bench.member.owned = frozenset({2})
    assert bench.sample("shard_objects", shard="1") is None
