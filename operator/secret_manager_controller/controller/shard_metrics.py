"""The series that tell of shards, made when they are scraped: one of a shard that is lost is gone by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lease_sharding.member import Member
from lease_sharding.observe import LIVING
from lease_sharding.snapshot import MemberRow
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.queue import WorkQueue

PREFIX = "secret_manager_"


class ShardCollector(Collector):
    """What this replica owns and how much waits there; what it sees of the whole group."""

    def __init__(self, *, member: Member, cache: ObjectCache, queue: WorkQueue) -> None:
        self._member = member
        self._cache = cache
        self._queue = queue

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry need not look for duplicates before there is a session."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the series as they are now."""
        member, counters = self._member, self._member.counters
        members = {row.name: row for row in member.snapshot().members}
        yield from (
            gauge("shards_owned", "Shards that this replica owns.", len(member.owned)),
            gauge("shards_unowned", "Shards that nobody owns although somebody should.", len(member.overdue())),
            gauge("members", "Replicas with a session, as this one sees it.", living(members.values())),
            counter("shard_handovers", "Shards gained that their last owner had released.", counters.handovers),
            counter("shard_takeovers", "Shards gained whose last owner had lost its session.", counters.takeovers),
            counter("shard_losses", "Shards lost without a release.", counters.lost),
            counter("session_lapses", "Sessions lost.", counters.lapses),
            counter("lease_writes", "Writes of Leases, refused ones too.", counters.writes),
        )
        age = GaugeMetricFamily(
            PREFIX + "session_age_seconds", "Seconds since this replica's session was last renewed."
        )
        if member.session_id is not None and (own := members.get(member.name)) is not None:
            age.add_metric([], own.renewed_ago)
        yield age
        yield from self._by_shard(member.owned)

    def _by_shard(self, owned: frozenset[int]) -> Iterable[Metric]:
        depths: defaultdict[int, int] = defaultdict(int)
        ages: defaultdict[int, float] = defaultdict(float)
        for key, waited in self._queue.waiting():
            shard = self._cache.shard_of(key)
            depths[shard] += 1
            ages[shard] = max(ages[shard], waited)
        objects = {shard: len(self._cache.in_shard(shard)) for shard in owned}
        yield by_shard("shard_objects", "Objects in a shard that this replica owns.", objects)
        yield by_shard("shard_queue_depth", "Objects of a shard that wait now.", {s: depths[s] for s in owned})
        yield by_shard(
            "shard_oldest_key_age_seconds", "For how long the first of them has waited.", {s: ages[s] for s in owned}
        )


def living(members: Iterable[MemberRow]) -> int:
    """Return how many members have a session."""
    return sum(row.state in LIVING for row in members)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels."""
    return CounterMetricFamily(PREFIX + name, text, value=value)


def by_shard(name: str, text: str, values: Mapping[int, float]) -> Metric:
    """Return a gauge with a series for each shard."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=["shard"])
    for shard, value in sorted(values.items()):
        family.add_metric([str(shard)], value)
    return family
