"""From the watch to the queue, and what the sweep finds that the watch missed."""

import asyncio

import pytest

from secret_manager_controller.controller import sweep as sweep_module
from secret_manager_controller.controller.cache import ObjectCache, SourceKey
from secret_manager_controller.controller.copies import ObjectCopies
from secret_manager_controller.controller.dispatch import Dispatcher
from secret_manager_controller.controller.policies import PolicyBook
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.sweep import KindInstalled, Sweeper
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.grants import SourceGrant
from secret_manager_controller.kube import GIT_REPOSITORIES, SECRET_MANAGER_CONFIGS, KubeError
from secret_manager_controller.sources.flux import revision_of

KINDS = {"GitRepository": GIT_REPOSITORIES}
REPO = SourceGrant("GitRepository", "flux-system", "repo")


def smc(name="a", generation=1, source="repo"):
    return {
        "metadata": {"namespace": "team", "name": name, "uid": name, "generation": generation},
        "spec": {"sourceRef": {"name": source, "namespace": "flux-system"}},
    }


def repository(revision="main@sha1:1", ready="True", **metadata):
    return {
        "kind": "GitRepository",
        "metadata": {"namespace": "flux-system", "name": "repo", "generation": 1, **metadata},
        "spec": {"url": "https://git.invalid", "interval": "1m"},
        "status": {
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": ready, "reason": "r", "message": "m"}],
            "artifact": {
                "revision": revision,
                "digest": f"sha256:{'0' * 64}",
                "url": "http://source.invalid/a",
                "size": 1,
            },
        },
    }


class Bench:
    def __init__(self, kube):
        self.kube = kube
        self.now = 0.0
        self.queue = WorkQueue(clock=lambda: 0.0)
        self.cache, self.copies = ObjectCache(len), ObjectCopies()
        self.foreign = set()
        self.sources = WatchedSources(kube, KINDS)
        self.gone = []
        self.policies = PolicyBook(self.kube)
        self.progress = WatchProgress(lambda: self.now)
        self.dispatcher = Dispatcher(
            cache=self.cache,
            copies=self.copies,
            sources=self.sources,
            policies=self.policies,
            progress=self.progress,
            queue=self.queue,
            owns=lambda key: key not in self.foreign,
            gone=self.gone.append,
        )
        self.sweeper = Sweeper(kube, self.dispatcher, KINDS, self.policies)
        self.serve("gitrepositories")

    def serve(self, *plurals, version="v1"):
        resources = [{"name": name} for plural in plurals for name in (plural, f"{plural}/status")]
        self.kube.put(f"/apis/source.toolkit.fluxcd.io/{version}", resources=resources)

    def queued(self):
        keys = sorted(key for key, _ in self.queue.waiting())
        for key in keys:
            self.queue.discard(key)
        return keys


@pytest.fixture
def bench(kube):
    return Bench(kube)


def test_an_object_is_queued_when_it_comes_and_when_it_changes(bench):
    bench.dispatcher.object_seen(smc())
    assert bench.queued() == ["team/a"]
    bench.dispatcher.object_seen(smc())
    assert bench.queued() == []
    bench.dispatcher.object_seen(smc(generation=2))
    assert bench.queued() == ["team/a"]


def test_a_deleted_object_is_forgotten_everywhere(bench):
    bench.dispatcher.object_seen(smc())
    bench.dispatcher.object_deleted(smc())
    assert (bench.queued(), bench.gone, len(bench.cache)) == ([], ["team/a"], 0)


def test_a_new_revision_queues_the_objects_on_the_source_and_no_others(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    bench.dispatcher.object_seen(smc("a"))
    bench.dispatcher.object_seen(smc("b", source="other"))
    bench.queued()
    bench.dispatcher.source_seen("GitRepository", repository(resourceVersion="2"))
    assert bench.queued() == []
    bench.dispatcher.source_seen("GitRepository", repository("main@sha1:2"))
    assert bench.queued() == ["team/a"]
    bench.dispatcher.source_deleted("GitRepository", repository())
    assert bench.queued() == ["team/a"]


async def test_a_source_is_answered_from_the_watch_without_a_request(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:1"
    assert bench.kube.requests == []


async def test_a_source_that_the_watch_has_not_shown_is_asked_for_and_its_first_event_is_no_change(bench):
    bench.dispatcher.object_seen(smc())
    bench.queued()
    bench.kube.put(GIT_REPOSITORIES.url("flux-system", "repo"), **repository())
    assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:1"
    bench.dispatcher.source_seen("GitRepository", repository())
    assert bench.queued() == []


async def test_a_shard_that_is_gained_lets_each_source_be_asked_for_once(bench):
    """The last owner may have seen more: what was watched here may be as old as it likes."""
    bench.dispatcher.source_seen("GitRepository", repository(resourceVersion="1"))
    bench.kube.objects[GIT_REPOSITORIES.url("flux-system", "repo")] = repository("main@sha1:2", resourceVersion="2")
    bench.sources.distrust()
    for _ in range(2):
        assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:2"
    assert len(bench.kube.requests) == 1
    bench.sources.distrust()
    await bench.sources.read(REPO)
    assert len(bench.kube.requests) == 2


async def test_events_that_come_late_do_not_outdo_what_was_asked_for_and_newer_ones_do(bench):
    bench.dispatcher.object_seen(smc())
    bench.dispatcher.source_seen("GitRepository", repository(resourceVersion="1"))
    bench.kube.objects[GIT_REPOSITORIES.url("flux-system", "repo")] = repository("main@sha1:9", resourceVersion="9")
    bench.sources.distrust()
    await bench.sources.read(REPO)
    bench.queued()
    bench.dispatcher.source_seen("GitRepository", repository("main@sha1:5", resourceVersion="5"))
    assert bench.queued() == ["team/a"]
    assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:9"
    bench.dispatcher.source_seen("GitRepository", repository("main@sha1:10", resourceVersion="10"))
    assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:10"
    assert len(bench.kube.requests) == 1


async def test_a_source_that_is_gone_is_gone_although_the_watch_still_shows_it(bench):
    bench.dispatcher.source_seen("GitRepository", repository(resourceVersion="1"))
    bench.sources.distrust()
    assert await bench.sources.read(REPO) is None


async def test_a_source_that_comes_after_it_was_missed_queues_its_objects(bench):
    bench.dispatcher.object_seen(smc())
    bench.queued()
    assert await bench.sources.read(REPO) is None
    bench.dispatcher.source_seen("GitRepository", repository())
    assert bench.queued() == ["team/a"]


async def test_a_source_that_cannot_be_read_is_tried_again(bench):
    def refuse(verb, path):
        raise KubeError(403, "forbidden")

    bench.kube.refuse = refuse
    with pytest.raises(RetryableError, match="flux-system/repo: forbidden"):
        await bench.sources.read(REPO)


async def test_the_sweep_queues_what_is_newer_than_the_watch_has_shown(bench):
    """A watch that hangs is found out; the copies are out of date then, and the next turns read the objects."""
    bench.sweeper.caught_up.set()
    path = SECRET_MANAGER_CONFIGS.url("team", "{}")
    for name in ("a", "b"):
        bench.dispatcher.object_seen(bench.kube.put(path.format(name), **smc(name)))
    bench.queued()
    bench.kube.put(path.format("a"), **smc("a"))
    assert await bench.sweeper.sweep() == 1
    assert bench.queued() == ["team/a"]
    assert (bench.copies.get("team/a"), bench.copies.get("team/b")["metadata"]["name"]) == (None, "b")


async def test_the_sweep_queues_ghosts_and_the_unseen(bench):
    bench.sweeper.caught_up.set()
    bench.dispatcher.object_seen(smc("ghost"))
    bench.queued()
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "unseen"), metadata={"namespace": "team", "name": "unseen"})
    assert await bench.sweeper.sweep() == 2
    assert bench.queued() == ["team/ghost", "team/unseen"]


def test_what_another_replica_works_on_is_remembered_but_not_queued(bench):
    bench.foreign = {"team/a"}
    bench.dispatcher.object_seen(smc())
    bench.dispatcher.source_seen("GitRepository", repository())
    assert (bench.queued(), "team/a" in bench.cache) == ([], True)


async def test_a_record_of_another_replica_is_forgotten_when_its_object_is_missing_twice(bench):
    bench.sweeper.caught_up.set()
    bench.foreign = {"team/ghost"}
    bench.dispatcher.object_seen(smc("ghost"))
    await bench.sweeper.sweep()
    assert ("team/ghost" in bench.cache, bench.gone) == (True, [])
    await bench.sweeper.sweep()
    assert ("team/ghost" in bench.cache, bench.gone) == (False, ["team/ghost"])


async def test_a_record_that_a_listing_was_too_old_to_show_is_kept(bench):
    bench.sweeper.caught_up.set()
    bench.foreign = {"team/new"}
    bench.dispatcher.object_seen(smc("new"))
    await bench.sweeper.sweep()
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "new"), metadata={"namespace": "team", "name": "new"})
    await bench.sweeper.sweep()
    await bench.sweeper.sweep()
    assert "team/new" in bench.cache


async def test_the_first_listing_is_waited_for_without_another(bench, monkeypatch):
    """Two listings, however long the watch takes: one to know what there is, one to know that nothing is missing."""
    monkeypatch.setattr(sweep_module, "CATCH_UP_INTERVAL", 0.0)
    bodies = [bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", name), **smc(name)) for name in "abc"]
    started = asyncio.Event()
    started.set()
    running = asyncio.create_task(bench.sweeper.run(3600.0, started=started))
    for body in bodies:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not bench.sweeper.caught_up.is_set()
        bench.dispatcher.object_seen(body)
    await bench.sweeper.caught_up.wait()
    running.cancel()
    assert bench.kube.done("list").count(SECRET_MANAGER_CONFIGS.url()) == 2


async def test_what_changes_while_the_first_listing_comes_in_does_not_keep_it_from_ending(bench):
    path = SECRET_MANAGER_CONFIGS.url("team", "a")
    bench.dispatcher.object_seen(bench.kube.put(path, **smc()))
    bench.queued()
    bench.kube.put(path, **smc())
    assert (await bench.sweeper.sweep(), bench.queued()) == (0, [])


async def test_before_the_first_listing_is_in_the_unseen_are_counted_but_not_queued(bench):
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "a"), metadata={"namespace": "team", "name": "a"})
    assert await bench.sweeper.sweep() == 1
    assert bench.queued() == []
    bench.dispatcher.object_seen(smc())
    assert await bench.sweeper.sweep() == 0


async def test_the_sweep_forgets_sources_that_are_gone_and_queues_their_objects(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "a"), metadata={"namespace": "team", "name": "a"})
    bench.dispatcher.object_seen(smc())
    bench.queued()
    assert await bench.sweeper.sweep() == 1
    assert bench.queued() == ["team/a"]
    assert bench.sources.ghosts("GitRepository", set()) == ()


async def test_a_kind_that_is_uninstalled_is_empty_and_asks_for_a_restart_once_it_is_back(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    bench.dispatcher.object_seen(smc())
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "a"), metadata={"namespace": "team", "name": "a"})
    bench.queued()
    bench.serve()
    assert await bench.sweeper.sweep() == 1
    assert bench.queued() == ["team/a"]
    assert await bench.sweeper.sweep() == 0
    bench.serve("gitrepositories")
    with pytest.raises(KindInstalled, match=r"gitrepositories.source.toolkit.fluxcd.io was installed or granted"):
        await bench.sweeper.sweep()


async def test_a_kind_that_comes_later_or_moves_asks_for_a_restart(bench):
    bench.serve("gitrepositories", "buckets")
    with pytest.raises(KindInstalled, match=r"buckets.source.toolkit.fluxcd.io was installed or granted"):
        await bench.sweeper.sweep()
    bench.serve()
    bench.serve("gitrepositories", version="v1beta2")
    with pytest.raises(KindInstalled, match=r"gitrepositories.source.toolkit.fluxcd.io is served in v1beta2 now"):
        await bench.sweeper.sweep()


async def test_a_kind_that_the_cluster_does_not_have_is_told(bench):
    bucket = SourceGrant("Bucket", "flux-system", "repo")
    with pytest.raises(RetryableError, match=r"has no kind Bucket \(buckets.source.toolkit.fluxcd.io\)") as caught:
        await bench.sources.read(bucket)
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND


async def test_a_fresh_answer_is_the_api_servers_and_leaves_the_watch_its_news(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    bench.dispatcher.object_seen(smc())
    bench.queued()
    bench.kube.put(GIT_REPOSITORIES.url("flux-system", "repo"), **repository("main@sha1:2"))
    assert revision_of(await bench.sources.read(REPO)).revision == "main@sha1:1"
    assert revision_of(await bench.sources.read(REPO, fresh=True)).revision == "main@sha1:2"
    bench.dispatcher.source_seen("GitRepository", repository("main@sha1:2"))
    assert bench.queued() == ["team/a"]


async def test_a_verification_that_changes_queues_the_objects_on_the_source(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    bench.dispatcher.object_seen(smc())
    bench.queued()
    verified = repository()
    verified["status"]["conditions"].append({"type": "SourceVerified", "status": "True", "reason": "Succeeded"})
    bench.dispatcher.source_seen("GitRepository", verified)
    assert bench.queued() == ["team/a"]


def test_the_identity_of_a_source_is_its_kind_namespace_and_name(bench):
    bench.dispatcher.source_seen("GitRepository", repository())
    assert bench.sources.ghosts("GitRepository", set()) == (SourceKey("GitRepository", "flux-system", "repo"),)
    assert bench.sources.ghosts("GitRepository", {("flux-system", "repo")}) == ()
    assert bench.sources.ghosts("Bucket", set()) == ()


def policy(*namespaces):
    return {"metadata": {"name": "p", "generation": 1}, "spec": {"namespaces": {"names": list(namespaces)}}}


def test_a_policy_queues_the_objects_of_its_namespaces_when_it_comes_changes_and_goes(bench):
    bench.dispatcher.namespace_seen({"metadata": {"name": "team"}})
    bench.dispatcher.object_seen(smc())
    bench.queued()
    for event in (bench.dispatcher.policy_seen, bench.dispatcher.policy_deleted):
        event(policy("team"))
        assert bench.queued() == ["team/a"]
    bench.dispatcher.policy_seen(policy("other"))
    assert bench.queued() == []


def test_a_label_that_changes_the_grants_queues_the_namespaces_objects(bench):
    bench.dispatcher.object_seen(smc())
    by_label = {"selector": {"matchLabels": {"tenant": "a"}}}
    bench.dispatcher.policy_seen({"metadata": {"name": "p"}, "spec": {"namespaces": by_label}})
    bench.queued()
    bench.dispatcher.namespace_seen({"metadata": {"name": "team", "labels": {"tenant": "a"}}})
    assert bench.queued() == ["team/a"]
    bench.dispatcher.namespace_deleted({"metadata": {"name": "team"}})
    assert bench.queued() == []


async def test_the_sweep_takes_back_the_grants_of_policies_that_are_gone(bench):
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "a"), metadata={"namespace": "team", "name": "a"})
    bench.dispatcher.namespace_seen({"metadata": {"name": "team"}})
    bench.dispatcher.object_seen(smc())
    bench.dispatcher.policy_seen(policy("team"))
    bench.queued()
    assert await bench.sweeper.sweep() == 1
    assert bench.queued() == ["team/a"]
    assert await bench.sweeper.sweep() == 0


async def test_a_watch_that_does_not_show_what_is_listed_lags(bench):
    """The sweep's listing is what the watch is measured by, for objects and for sources."""
    bench.kube.put(SECRET_MANAGER_CONFIGS.url("team", "a"), **smc())
    bench.kube.put(GIT_REPOSITORIES.url("flux-system", "repo"), **repository())
    await bench.sweeper.sweep()
    bench.now = 5.0
    assert dict(bench.progress.lags()) == {"SecretManagerConfig": 5, "GitRepository": 5}
    bench.dispatcher.object_seen(bench.kube.objects[SECRET_MANAGER_CONFIGS.url("team", "a")])
    bench.dispatcher.source_seen("GitRepository", bench.kube.objects[GIT_REPOSITORIES.url("flux-system", "repo")])
    assert dict(bench.progress.lags()) == {"SecretManagerConfig": 0, "GitRepository": 0}
