"""From what the watch says to what is queued: remember a slim record of everything, queue what is ours to work on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from secret_manager_controller.controller.cache import ObjectCache, SourceKey, record_of
from secret_manager_controller.controller.copies import ObjectCopies, key_of, version_of
from secret_manager_controller.controller.policies import PolicyBook
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources

Body = Mapping[str, Any]

OBJECT = "SecretManagerConfig"


class Dispatcher:
    """The informer's sink. What an event says is ignored but for what it is about: the reconcile reads the state."""

    def __init__(
        self,
        *,
        cache: ObjectCache,
        copies: ObjectCopies,
        sources: WatchedSources,
        policies: PolicyBook,
        progress: WatchProgress,
        queue: WorkQueue,
        owns: Callable[[str], bool],
        gone: Callable[[str], None],
    ) -> None:
        """Make a sink.

        Args:
            cache: the records to keep up to date.
            copies: the copies to keep up to date.
            sources: the sources to keep up to date.
            policies: the policies to keep up to date.
            progress: told what the watches and listings show.
            queue: where changed objects go.
            owns: tells whether a key is worked on here; the others are remembered, for when their shard is gained.
            gone: told the key of each object that does not exist any more.
        """
        self._cache = cache
        self._copies = copies
        self._sources = sources
        self._policies = policies
        self._progress = progress
        self._queue = queue
        self._owns = owns
        self._gone = gone
        self._suspects: frozenset[str] = frozenset()

    def object_seen(self, body: Body) -> None:
        """Queue the object if anything that can trigger a reconcile changed; a status write does not."""
        record = record_of(body)
        self._progress.shown(OBJECT, version_of(body["metadata"]))
        self._copies.put(body)
        if self._cache.put(record):
            self._add(record.key)

    def object_deleted(self, body: Body) -> None:
        """Forget the object."""
        self._progress.shown(OBJECT, version_of(body["metadata"]))
        self.forget(key_of(body["metadata"]))

    def forget(self, key: str) -> None:
        """Forget an object that does not exist."""
        self._cache.remove(key)
        self._copies.remove(key)
        self._queue.discard(key)
        self._gone(key)

    def source_seen(self, kind: str, body: Body) -> None:
        """Queue every object on the source if its revision or readiness changed."""
        source = _source_key(kind, body)
        self._progress.shown(kind, version_of(body["metadata"]))
        if self._sources.put(source, body):
            self._queue_users(source)

    def source_deleted(self, kind: str, body: Body) -> None:
        """Queue every object on the source, so that each says that it is missing."""
        source = _source_key(kind, body)
        self._progress.shown(kind, version_of(body["metadata"]))
        self._sources.remove(source)
        self._queue_users(source)

    def policy_seen(self, body: Body) -> None:
        """Queue every object whose grants may have changed."""
        self._queue_namespaces(self._policies.put(body))

    def policy_deleted(self, body: Body) -> None:
        """Queue every object that may have lost a grant, so that the next thing it does is to stop."""
        self.forget_policy(body["metadata"]["name"])

    def forget_policy(self, name: str) -> None:
        """Forget a policy that does not exist."""
        self._queue_namespaces(self._policies.remove(name))

    def namespace_seen(self, body: Body) -> None:
        """Queue the namespace's objects if its labels put it under other policies."""
        if self._policies.put_namespace(body):
            self._queue_namespaces((body["metadata"]["name"],))

    def namespace_deleted(self, body: Body) -> None:
        """Forget the namespace."""
        self._policies.remove_namespace(body["metadata"]["name"])

    def sweep_objects(self, existing: Mapping[str, int | None], *, listed: bool) -> int:
        """Queue what the watch missed; return how many: records without an object, objects without a record or changed.

        A listing may be older than what the watch has shown since. An owned key's turn finds out; a record of another
        replica's key is forgotten when its object is missing twice in a row.

        Args:
            existing: the resourceVersions of all objects, by key.
            listed: whether the watch has shown its first listing; until then, what it has not shown comes by itself,
                and would be reconciled twice. What changes meanwhile must not keep that from ending, either.
        """
        self._progress.listed(OBJECT, newest(existing))
        ghosts, unseen = self._cache.ghosts(existing), self.unseen(existing)
        late = [key for key, version in existing.items() if listed and self._copies.behind(key, version)]
        missed = [*ghosts, *late]
        for key in missed:
            self._copies.distrust(key)
        for key in (*missed, *(unseen if listed else ())):
            self._add(key)
        foreign = frozenset(key for key in ghosts if not self._owns(key))
        for key in foreign & self._suspects:
            self.forget(key)
        self._suspects = foreign
        return len(missed) + len(unseen)

    def unseen(self, existing: Iterable[str]) -> list[str]:
        """Return those of the keys that the watch has not shown."""
        return [key for key in existing if key not in self._cache]

    def sweep_sources(self, kind: str, existing: Mapping[tuple[str, str], int | None]) -> int:
        """Forget the sources of a kind whose deletion the watch missed; return how many.

        Args:
            kind: the kind.
            existing: the resourceVersions of all sources of the kind, by namespace and name.
        """
        self._progress.listed(kind, newest(existing))
        ghosts = self._sources.ghosts(kind, existing)
        for source in ghosts:
            self._sources.remove(source)
            self._queue_users(source)
        return len(ghosts)

    def forget_kind(self, kind: str) -> int:
        """Forget all sources of a kind that is not served any more; return how many there were."""
        gone = self.sweep_sources(kind, {})
        self._progress.forget(kind)
        return gone

    def _queue_namespaces(self, namespaces: Collection[str]) -> None:
        for key in self._cache.in_namespaces(namespaces):
            self._add(key)

    def _queue_users(self, source: SourceKey) -> None:
        for key in self._cache.using(source):
            self._add(key)

    def _add(self, key: str) -> None:
        if self._owns(key):
            self._queue.add(key)


def newest(existing: Mapping[Any, int | None]) -> int | None:
    """Return the newest version of a listing, None of one without any."""
    return max((version for version in existing.values() if version is not None), default=None)


def _source_key(kind: str, body: Body) -> SourceKey:
    return SourceKey(kind, body["metadata"]["namespace"], body["metadata"]["name"])
