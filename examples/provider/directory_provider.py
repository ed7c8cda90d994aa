"""A fourth provider, whole: secrets as files of a directory, for a store that has no cloud.

It shows what a provider owes the controller. What a real one adds is its SDK: requests in threads, tried again where
that helps and counted (`secret_manager_controller.providers.calls`), and a budget (`…providers.budget`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lease_sharding.fence import Fence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteValue
from secret_manager_controller.model.secret import SecretName, SecretValue, Version
from secret_manager_controller.providers.writes import write_id

WRITE_TIMEOUT = 1.0
"""Seconds that a write takes at most: the fence must hold for that long when it begins."""


@dataclass(slots=True)
class Stored:
    """One file: versions in base64 by their ids, the current one, the owner mark, and labels."""

    versions: dict[str, str] = field(default_factory=dict)
    current: str | None = None
    mark: dict[str, str] | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> OwnerMark | None:
        """Who manages it."""
        return None if self.mark is None else OwnerMark(**self.mark)


class Directory:
    """The store itself. Every change holds a lock, so that what was seen is what is replaced.

    Attributes:
        changes: the names of the secrets that were changed by this one, in order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.changes: list[str] = []

    def names(self) -> list[str]:
        """Return the names of all secrets."""
        return sorted(file.stem for file in self._path.glob("*.json"))

    def read(self, name: str) -> Stored | None:
        """Return a secret, or None."""
        try:
            found: dict[str, Any] = json.loads(self._file(name).read_text())
        except FileNotFoundError:
            return None
        return Stored(**found)

    def write(self, name: str, stored: Stored) -> None:
        """Replace a secret's file as a whole."""
        self.changes.append(name)
        new = self._file(name).with_suffix(".new")
        new.write_text(json.dumps(asdict(stored)))
        new.replace(self._file(name))

    def remove(self, name: str) -> None:
        """Delete a secret; one that is gone is fine."""
        self.changes.append(name)
        self._file(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change anything until the end of the block."""
        with (self._path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _file(self, name: str) -> Path:
        return self._path / f"{name}.json"


class DirectoryProvider:
    """Secrets in a directory; a `Provider`.

    Args:
        store: where they are.
        labels: what every secret is to have; others are not managed.
    """

    def __init__(self, store: Directory, *, labels: Mapping[str, str] | None = None) -> None:
        self._store = store
        self._labels = dict(labels or {})

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at the named secrets and at all that carry `mark`: versions and marks, no values."""
        del since  # Every look is a new one.
        found = {}
        for name in self._store.names():
            stored = self._store.read(name)
            if stored is not None and (name in names or stored.owner == mark):
                version = None if stored.current is None else Version(stored.current)
                differs = not self._labels.items() <= stored.labels.items()
                found[SecretName(name)] = RemoteSecret(SecretName(name), version, stored.owner, options_differ=differs)
        return ObservedState(found)

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read current values, each with its version."""
        values = {}
        for remote in secrets:
            stored = self._store.read(remote.name)
            if stored is not None and stored.current is not None:
                values[remote.name] = RemoteValue(Version(stored.current), _value(stored))
        return values

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret; what exists is left, unless an attempt of ours whose answer was lost made it."""
        version = Version(write_id(secret, previous="create", mark=mark, revision=revision))
        with self._store.locked():
            stored = self._store.read(secret.name)
            if stored is None:
                self._put(secret, version, Stored(mark=asdict(mark)), fence)
                return version
        if stored.owner != mark:
            raise PermanentError(Reason.CONFLICT, f"{secret.name!r} was created by someone else meanwhile")
        if stored.current is None or _value(stored) != secret.value:
            raise _changed(secret.name)
        return Version(stored.current)

    async def update(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        """Write a version over the one that was seen, and over no other one."""
        version = Version(write_id(secret, previous=current.version or "create", mark=mark, revision=revision))
        with self._store.locked():
            stored = self._store.read(secret.name)
            if stored is None or stored.current not in {current.version, version}:
                raise _changed(secret.name)
            if stored.current != version:  # Else it is a repetition.
                self._put(secret, version, stored, fence)
        return version

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Put our mark and what is declared on a secret that is still marked as it was seen."""
        with self._store.locked():
            stored = self._store.read(current.name)
            if stored is None or stored.owner not in {current.mark, mark}:
                raise _changed(current.name)
            fence.check(WRITE_TIMEOUT)
            stored.mark = asdict(mark)
            stored.labels |= self._labels
            self._store.write(current.name, stored)

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Delete a secret that is still marked as it was seen; one that is gone is fine."""
        with self._store.locked():
            stored = self._store.read(current.name)
            if stored is None:
                return
            if stored.owner != current.mark:
                raise _changed(current.name)
            fence.check(WRITE_TIMEOUT)
            self._store.remove(current.name)

    async def aclose(self) -> None:
        """Release nothing: there are no connections."""

    def _put(self, secret: DesiredSecret, version: Version, stored: Stored, fence: Fence) -> None:
        fence.check(WRITE_TIMEOUT)
        stored.versions[version] = b64encode(secret.value.expose()).decode()
        stored.current = version
        stored.labels |= self._labels
        self._store.write(secret.name, stored)


def _value(stored: Stored) -> SecretValue:
    assert stored.current is not None  # Who calls this looked.
    return SecretValue(b64decode(stored.versions[stored.current]))


def _changed(name: SecretName) -> RetryableError:
    return RetryableError(Reason.STORE_CHANGED, f"{name!r} was changed by someone else meanwhile")
