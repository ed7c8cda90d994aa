"""What the controller remembers of the cluster: a slim record an object, by source and by shard.

A record holds what can trigger a reconcile and nothing else; the reconcile itself reads the object afresh. 10,000
records take about 10 MB.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from secret_manager_controller.model.annotations import TRIGGER_ANNOTATIONS
from secret_manager_controller.model.spec import SourceKind

_PLACES: Final = {"aws": "region", "gcp": "projectId", "azure": "vaultName"}
_LOGINS: Final = ("secretName", "secretNamespace", "roleArn")

KNOWN_NAMESPACES: Final = 65_536
"""Namespaces whose shard is not hashed again."""


@dataclass(frozen=True, slots=True)
class SourceKey:
    """The identity of a source object."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """What can trigger a reconcile of one object.

    Attributes:
        uid: a new one means that the object was deleted and made again.
        triggers: the values of the annotations that ask for something.
        lane: names the store and the login that the object asks for, as far as that can be told; else "".
    """

    key: str
    uid: str
    generation: int
    source: SourceKey | None
    triggers: tuple[str | None, ...]
    deleting: bool
    lane: str = ""


def record_of(body: Mapping[str, Any]) -> Record:
    """Return the slim record of an object as the watch gave it; a malformed spec has no source."""
    metadata = body["metadata"]
    namespace, annotations = metadata["namespace"], metadata.get("annotations") or {}
    return Record(
        key=f"{namespace}/{metadata['name']}",
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        source=_source_of(body.get("spec"), namespace),
        triggers=tuple(annotations.get(name) for name in TRIGGER_ANNOTATIONS),
        deleting=metadata.get("deletionTimestamp") is not None,
        lane=_lane_of(body.get("spec"), namespace),
    )


class ObjectCache:
    """The records of all objects in the cluster, this replica's and the others', indexed by source and by shard."""

    def __init__(self, shard_of_namespace: Callable[[str], int]) -> None:
        self._shard_of_namespace = functools.lru_cache(maxsize=KNOWN_NAMESPACES)(shard_of_namespace)
        self._records: dict[str, Record] = {}
        self._by_source: dict[SourceKey, set[str]] = {}
        self._by_shard: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def put(self, record: Record) -> bool:
        """Store a record; return whether it differs from the one before in anything that can trigger a reconcile."""
        before = self._records.get(record.key)
        if before == record:
            return False
        self.remove(record.key)
        self._records[record.key] = record
        self._by_shard.setdefault(self.shard_of(record.key), set()).add(record.key)
        if record.source is not None:
            self._by_source.setdefault(record.source, set()).add(record.key)
        return True

    def remove(self, key: str) -> None:
        """Drop the record of an object that is gone."""
        record = self._records.pop(key, None)
        if record is None:
            return
        self._by_shard[self.shard_of(key)].discard(key)
        if record.source is not None:
            keys = self._by_source[record.source]
            keys.discard(key)
            if not keys:
                del self._by_source[record.source]

    def shard_of(self, key: str) -> int:
        """Return the shard that an object is in: its namespace's."""
        return self._shard_of_namespace(key.partition("/")[0])

    def lane_of(self, key: str) -> str:
        """Return the lane of an object, "" of one that is not known."""
        record = self._records.get(key)
        return "" if record is None else record.lane

    def in_shard(self, shard: int) -> frozenset[str]:
        """Return the keys of the objects in a shard."""
        return frozenset(self._by_shard.get(shard, ()))

    def using(self, source: SourceKey) -> tuple[str, ...]:
        """Return the keys of the objects that refer to a source."""
        return tuple(self._by_source.get(source, ()))

    def by_source(self) -> Iterable[tuple[SourceKey, Collection[str]]]:
        """Return each source that an object refers to, with the keys of those that do."""
        return self._by_source.items()

    def in_namespaces(self, namespaces: Collection[str]) -> tuple[str, ...]:
        """Return the keys of the objects in any of these namespaces."""
        return tuple(key for key in self._records if key.partition("/")[0] in namespaces)

    def ghosts(self, existing: Iterable[str]) -> tuple[str, ...]:
        """Return the keys of records whose object does not exist: their deletion fell into a gap of the watch."""
        return tuple(self._records.keys() - set(existing))


def _lane_of(spec: object, namespace: str) -> str:
    """Return the kind of store, and what tells one account from another, with `/` between them.

    Objects that differ here may still share an account: then only the bound of their kind of store holds for both.
    """
    provider = spec.get("provider", spec) if isinstance(spec, Mapping) else None
    for kind, place in _PLACES.items():
        match provider:
            case {**blocks} if isinstance(block := blocks.get(kind), Mapping):
                auth = block.get("auth")
                login = [auth.get(name) for name in _LOGINS] if isinstance(auth, Mapping) else []
                owner = namespace if any(login) else ""
                return sys.intern("/".join(str(part or "")[:256] for part in (kind, block.get(place), owner, *login)))
    return ""


def _source_of(spec: object, namespace: str) -> SourceKey | None:
    match spec:
        case {"sourceRef": {"name": str(name)} as reference}:
            return SourceKey(
                reference.get("kind", SourceKind.GIT_REPOSITORY), reference.get("namespace", namespace), name
            )
        case _:
            return None
