"""The series that tell of objects, sources and watches, made when they are scraped: what is gone has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.shard_metrics import PREFIX
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.errors import Reason


class ObjectCollector(Collector):
    """What the objects of this replica are like. No series is an object's own, unless that is wanted.

    Args:
        reasons: the reason of each object's Ready condition, by key.
        cache: tells shards, and which objects use a source.
        sources: tells which sources are stale.
        progress: tells how far the watches are behind.
        owns: whether a key is worked on here.
        per_object: whether each object has a series of its own.
    """

    def __init__(
        self,
        *,
        reasons: Mapping[str, str],
        cache: ObjectCache,
        sources: WatchedSources,
        progress: WatchProgress,
        owns: Callable[[str], bool],
        per_object: bool,
    ) -> None:
        self._reasons = reasons
        self._cache = cache
        self._sources = sources
        self._progress = progress
        self._owns = owns
        self._per_object = per_object

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry need not look for duplicates."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the series as they are now."""
        yield self._not_ready()
        stale: Counter[str] = Counter()
        for source, keys in self._cache.by_source():
            if any(map(self._owns, keys)):
                stale[source.kind] += self._sources.stale(source)
        rows = (((kind,), count) for kind, count in stale.items())
        yield _family("sources_stale", "Sources in use that are missing or not ready.", ["kind"], rows)
        lags = (((kind,), lag) for kind, lag in self._progress.lags())
        yield _family("watch_lag_seconds", "For how long a watch has not shown what a listing did.", ["kind"], lags)
        if self._per_object:
            yield self._ready()

    def _not_ready(self) -> Metric:
        found: Counter[tuple[str, str]] = Counter()
        for key, reason in self._reasons.items():
            if reason != Reason.RECONCILIATION_SUCCEEDED:
                found[str(self._cache.shard_of(key)), reason] += 1
        text = "Objects that are not ready after their last reconcile, by the reason of their condition."
        return _family("objects_not_ready", text, ["shard", "reason"], found.items())

    def _ready(self) -> Metric:
        rows = (((key,), float(reason == Reason.RECONCILIATION_SUCCEEDED)) for key, reason in self._reasons.items())
        # Not by `namespace`: that is the label of the pod's own, where Prometheus discovers pods.
        return _family("object_ready", "Whether an object is ready.", ["object"], rows)


def _family(name: str, text: str, labels: list[str], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in sorted(rows):
        family.add_metric(values, value)
    return family
