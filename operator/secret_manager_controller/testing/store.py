"""A store in memory, and its provider: for tests of everything that stands above a provider.

store = FakeStore()
provider = FakeProvider(store)
store.put_by_hand("app-token", b"old")
store.fail("update", commit=True)   # The next update is carried out, its answer lost.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lease_sharding.fence import Fence
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteState, RemoteValue
from secret_manager_controller.model.secret import SecretName, SecretValue, SourceHash, Version
from secret_manager_controller.testing.calls import OK, Call

CALL_TIMEOUT = 1.0
"""Margin that the fake provider asks of a fence; its calls take no time."""
WRITES = frozenset({"create", "update", "adopt", "delete"})


@dataclass(slots=True)
class FakeSecret:
    """One stored secret: its versions, oldest first, and which of them is current."""

    mark: OwnerMark | None
    versions: dict[Version, SecretValue] = field(default_factory=dict)
    current: Version | None = None
    state: RemoteState = RemoteState.ACTIVE
    labels: dict[str, str] = field(default_factory=dict)
    written: dict[tuple[Version | None, SourceHash], Version] = field(default_factory=dict)
    """The version that each write made, by what it replaced and from what: a repetition makes no other."""

    def put(self, value: SecretValue, version: Version) -> Version:
        """Add a version and make it current."""
        self.versions[version] = value
        self.current = version
        return version


@dataclass(slots=True)
class _Fault:
    operation: str
    error: ControllerError
    times: int
    commit: bool


class FakeStore:
    """The store's side: its content, what people do to it by hand, faults, and the call log."""

    def __init__(self) -> None:
        self.secrets: dict[SecretName, FakeSecret] = {}
        self.calls: list[Call] = []
        self._faults: list[_Fault] = []
        self._held: dict[str, asyncio.Event] = {}
        self._numbers = itertools.count(1)

    def values(self) -> Mapping[str, bytes]:
        """Return the current value of each secret that has one and is not scheduled for deletion."""
        return {
            name: secret.versions[secret.current].expose()
            for name, secret in self.secrets.items()
            if secret.current is not None and secret.state is RemoteState.ACTIVE
        }

    def versions(self, name: str) -> int:
        """Return how many versions a secret has; 0 where there is none."""
        secret = self.secrets.get(SecretName(name))
        return 0 if secret is None else len(secret.versions)

    def mark(self, name: str) -> OwnerMark | None:
        """Return a secret's owner mark."""
        secret = self.secrets.get(SecretName(name))
        return None if secret is None else secret.mark

    def labels(self, name: str) -> Mapping[str, str]:
        """Return a secret's labels."""
        return dict(self.secrets[SecretName(name)].labels)

    def set_label(self, name: str, key: str, value: str) -> None:
        """Write a label by hand."""
        self.secrets[SecretName(name)].labels[key] = value

    def writes(self) -> list[Call]:
        """Return the calls that asked for a change."""
        return [call for call in self.calls if call.operation in WRITES]

    def clear_calls(self) -> None:
        """Empty the call log."""
        self.calls.clear()

    def put_by_hand(self, name: str, value: bytes, *, mark: OwnerMark | None = None) -> Version:
        """Write a value as a person would, with a mark where the secret is new; return its version."""
        secret = self.secrets.setdefault(SecretName(name), FakeSecret(mark))
        return secret.put(SecretValue(value), self.next_version())

    def create_empty(self, name: str, *, mark: OwnerMark | None = None) -> None:
        """Create a secret that has no version."""
        self.secrets[SecretName(name)] = FakeSecret(mark)

    def schedule_deletion(self, name: str) -> None:
        """Schedule a secret's deletion as a person would."""
        self.secrets[SecretName(name)].state = RemoteState.DELETION_SCHEDULED

    def destroy(self, name: str) -> None:
        """Delete a secret at once."""
        del self.secrets[SecretName(name)]

    def fail(
        self, operation: str, error: ControllerError | None = None, *, times: int = 1, commit: bool = False
    ) -> None:
        """Let the next calls fail.

        Args:
            operation: a method of `Provider`.
            error: what is raised; StoreUnavailable by default.
            times: how many calls.
            commit: carry the call out all the same: its answer is what is lost.
        """
        told = error or RetryableError(Reason.STORE_UNAVAILABLE, "the store does not answer: a fault of the test")
        self._faults.append(_Fault(operation, told, times, commit))

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    def hold(self, operation: str) -> asyncio.Event:
        """Let calls of one operation wait before they take effect until the returned event is set."""
        return self._held.setdefault(operation, asyncio.Event())

    def next_version(self) -> Version:
        """Return the id of the next version; ids of all secrets are distinct."""
        return Version(str(next(self._numbers)))

    async def arrive(self, operation: str) -> None:
        """Wait as long as calls of this operation are held."""
        if (held := self._held.get(operation)) is not None:
            await held.wait()

    def take_fault(self, operation: str, *, commit: bool) -> ControllerError | None:
        """Return the error that this call meets before (or, with `commit`, after) it took effect, and count it."""
        for fault in self._faults:
            if fault.operation == operation and fault.commit is commit and fault.times > 0:
                fault.times -= 1
                return fault.error
        return None

    def note(
        self, who: str, operation: str, names: Collection[str], error: ControllerError | None, *, done: bool
    ) -> None:
        """Add to the call log."""
        code = OK if error is None else str(error.reason)
        self.calls.append(Call(len(self.calls) + 1, time.time(), who, operation, tuple(names), code, done))


class FakeProvider:
    """A `Provider` for a `FakeStore`.

    Args:
        store: several providers may share it, as replicas share an account.
        who: names this one in the call log.
        labels: what objects declare beside values; others are not managed.
    """

    def __init__(self, store: FakeStore, *, who: str = "fake", labels: Mapping[str, str] | None = None) -> None:
        self.closed = False
        self.since: list[float | None] = []
        """How new each look had to be."""
        self._store = store
        self._who = who
        self._labels = dict(labels or {})

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at secrets; see `Provider.observe`."""
        self.since.append(since)
        async with _Call(self._store, self._who, "observe", names):
            return ObservedState(
                {
                    name: RemoteSecret(name, secret.current, secret.mark, secret.state, self._differs(secret))
                    for name, secret in self._store.secrets.items()
                    if name in names or secret.mark == mark
                }
            )

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read values; see `Provider.read`."""
        async with _Call(self._store, self._who, "read", [remote.name for remote in secrets]):
            values = {}
            for remote in secrets:
                secret = self._store.secrets.get(remote.name)
                if secret is not None and secret.current is not None and secret.state is RemoteState.ACTIVE:
                    values[remote.name] = RemoteValue(secret.current, secret.versions[secret.current])
            return values

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret; see `Provider.create`."""
        del revision  # It is told to people; nothing here looks at it.
        async with _Call(self._store, self._who, "create", [secret.name], fence):
            stored = self._store.secrets.get(secret.name)
            if stored is None:
                stored = self._store.secrets[secret.name] = FakeSecret(mark)
            elif stored.mark != mark or stored.written.get((None, secret.source_hash)) != stored.current:
                raise PermanentError(Reason.CONFLICT, f"{secret.name!r} exists already")
            return self._write(stored, secret, previous=None)

    async def update(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        """Write a new version; see `Provider.update`."""
        del mark, revision  # The secret carries the mark already; nothing here looks at the revision.
        async with _Call(self._store, self._who, "update", [secret.name], fence):
            stored = self._existing(secret.name)
            repeated = stored.written.get((current.version, secret.source_hash))
            if stored.current not in {current.version, repeated}:
                raise _changed(secret.name)
            stored.state = RemoteState.ACTIVE
            return self._write(stored, secret, previous=current.version)

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Mark a secret; see `Provider.adopt`."""
        async with _Call(self._store, self._who, "adopt", [current.name], fence):
            stored = self._existing(current.name)
            if stored.mark not in {current.mark, mark}:
                raise _changed(current.name)
            stored.mark = mark
            stored.labels |= self._labels

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Schedule a secret's deletion; see `Provider.delete`."""
        async with _Call(self._store, self._who, "delete", [current.name], fence):
            if current.name in self._store.secrets:
                self._store.schedule_deletion(current.name)

    @property
    def key_service(self) -> None:
        """None: there is no KMS beside the fake store."""
        return

    async def aclose(self) -> None:
        """Note that the provider was closed."""
        self.closed = True

    def _differs(self, secret: FakeSecret) -> bool:
        return not self._labels.items() <= secret.labels.items()

    def _existing(self, name: SecretName) -> FakeSecret:
        stored = self._store.secrets.get(name)
        if stored is None:
            raise _changed(name)
        return stored

    def _write(self, stored: FakeSecret, secret: DesiredSecret, *, previous: Version | None) -> Version:
        key = (previous, secret.source_hash)
        version = stored.written.setdefault(key, self._store.next_version())
        stored.labels |= self._labels
        return stored.put(secret.value, version)


class _Call:
    """One call: the fence before it, faults before and after it, and its entry in the log."""

    def __init__(
        self, store: FakeStore, who: str, operation: str, names: Collection[SecretName], fence: Fence | None = None
    ) -> None:
        self._store = store
        self._who = who
        self._operation = operation
        self._names = sorted(names)
        self._fence = fence

    async def __aenter__(self) -> None:
        if self._fence is not None:
            self._fence.check(CALL_TIMEOUT)
        await self._store.arrive(self._operation)
        error = self._store.take_fault(self._operation, commit=False)
        if error is not None:
            self._store.note(self._who, self._operation, self._names, error, done=False)
            raise error

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            told = error if isinstance(error, ControllerError) else None
            self._store.note(self._who, self._operation, self._names, told, done=False)
            return
        lost = self._store.take_fault(self._operation, commit=True)
        self._store.note(self._who, self._operation, self._names, lost, done=True)
        if lost is not None:
            raise lost


def _changed(name: SecretName) -> RetryableError:
    return RetryableError(Reason.STORE_CHANGED, f"{name!r} was changed by someone else meanwhile")
