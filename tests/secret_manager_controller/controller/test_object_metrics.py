"""Series of objects, sources and watches are made when they are scraped."""

import pytest
from prometheus_client import CollectorRegistry

from secret_manager_controller.controller.cache import ObjectCache, SourceKey, record_of
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.object_metrics import ObjectCollector
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.errors import Reason

READY, FAILED = str(Reason.RECONCILIATION_SUCCEEDED), str(Reason.DECRYPTION_FAILED)


def repository(ready, **spec):
    conditions = [] if ready is None else [{"type": "Ready", "status": ready}]
    return {"metadata": {"namespace": "red", "name": "repo"}, "spec": spec, "status": {"conditions": conditions}}


class Bench:
    def __init__(self):
        self.metrics = Metrics()
        self.cache = ObjectCache({"red": 1, "blue": 2}.__getitem__)
        self.sources = WatchedSources(None, {})
        self.progress = WatchProgress(float)
        self.foreign = set()
        for key in ("red/a", "red/b", "blue/a"):
            namespace, name = key.split("/")
            metadata = {"namespace": namespace, "name": name}
            self.cache.put(record_of({"metadata": metadata, "spec": {"sourceRef": {"name": "repo"}}}))

    def sample(self, family, /, *, per_object=False, **labels):
        registry = CollectorRegistry()
        registry.register(
            ObjectCollector(
                reasons=self.metrics.reasons, cache=self.cache, sources=self.sources, progress=self.progress,
                owns=lambda key: key not in self.foreign, per_object=per_object,
            )
        )  # fmt: skip
        return registry.get_sample_value(f"secret_manager_{family}", labels)

    def stale(self):
        return self.sample("sources_stale", kind="GitRepository")


@pytest.fixture
def bench():
    return Bench()


def test_objects_that_are_not_ready_are_counted_by_shard_and_reason(bench):
    bench.metrics.reasons |= {"red/a": FAILED, "red/b": FAILED, "blue/a": READY}
    assert bench.sample("objects_not_ready", shard="1", reason=FAILED) == 2
    assert bench.sample("objects_not_ready", shard="2", reason=READY) is None


def test_what_is_gone_or_handed_over_has_no_series_any_more(bench):
    bench.metrics.reasons |= {"red/a": FAILED, "blue/a": FAILED}
    bench.metrics.forget("red/a")
    bench.metrics.forget_shard(2, ["blue/a"])
    assert [bench.sample("objects_not_ready", shard=shard, reason=FAILED) for shard in "12"] == [None, None]


def test_an_object_has_a_series_of_its_own_only_if_that_is_wanted(bench):
    bench.metrics.reasons |= {"red/a": FAILED, "red/b": READY}
    told = [bench.sample("object_ready", per_object=on, object=f"red/{n}") for on in (False, True) for n in "ab"]
    assert told == [None, None, 0, 1]


def test_sources_in_use_that_are_missing_are_stale(bench):
    assert bench.stale() == 2  # One in each namespace.
    bench.foreign.add("blue/a")
    assert bench.stale() == 1


@pytest.mark.parametrize(
    ("source", "stale"),
    [
        pytest.param(repository("True"), 0, id="ready"),
        pytest.param(repository("False"), 1, id="not ready"),
        pytest.param(repository(None), 1, id="not looked at"),
        pytest.param(repository("False", suspend=True), 0, id="suspended"),
    ],
)
def test_a_source_that_is_not_ready_is_stale(bench, source, stale):
    bench.foreign.add("blue/a")
    bench.sources.put(SourceKey("GitRepository", "red", "repo"), source)
    assert bench.stale() == stale


def test_each_watch_tells_how_far_it_is_behind(bench):
    bench.progress.listed("GitRepository", 3)
    assert bench.sample("watch_lag_seconds", kind="GitRepository") == 0
