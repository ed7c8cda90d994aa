"""The effect: carry out a plan, each write behind the fence, and report what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lease_sharding.fence import Fence
from secret_manager_controller.compare import VersionMemory
from secret_manager_controller.errors import ControllerError, Reason
from secret_manager_controller.model.inventory import Inventory, InventoryEntry
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.plan import Adopt, Create, Plan, Prune, Update
from secret_manager_controller.model.report import Failure, Report
from secret_manager_controller.model.secret import NOT_COMPARED, SecretName, Version
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.tracing import Attribute, named, step

PARALLEL_WRITES = 8
"""Writes of one object at a time: AWS allows 50 puts a second, and one takes about 50 ms."""

_STORE_WIDE = frozenset({Reason.STORE_UNAVAILABLE, Reason.RATE_LIMITED, Reason.CREDENTIALS_UNAVAILABLE})
"""Failures that the next secret would meet too: no further write of this plan is begun."""

Write = Create | Update | Adopt | Prune


@dataclass(frozen=True, slots=True)
class StoreSession:
    """What every write of one reconcile needs.

    Attributes:
        store: the account, project or vault, as `VersionMemory` tells them apart.
        mark: the object's owner mark.
        revision: the source revision that is being applied.
    """

    provider: Provider
    store: str
    mark: OwnerMark
    revision: str
    fence: Fence
    memory: VersionMemory


@dataclass(slots=True)
class _Progress:
    done: dict[SecretName, InventoryEntry | None] = field(default_factory=dict)
    written: list[Write] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    fatal: Exception | None = None
    stopped: bool = False


async def apply(plan: Plan, inventory: Inventory, session: StoreSession) -> Report:
    """Carry out a plan.

    One secret's refusal does not stop the others; a store that is down or throttles stops the rest. Secrets are pruned
    only after every other write went well.

    Raises:
        OwnershipLost: the fence closed. Calls under way have ended by then, and nothing is to be written to status.
    """
    progress = _Progress()
    writes = [action for action in plan.changes if not isinstance(action, Prune)]
    prunes = [action for action in plan.changes if isinstance(action, Prune)]
    await _run(writes, session, progress)
    if not progress.failures:
        await _run(prunes, session, progress)
    return _report(plan, inventory, progress)


async def _run(writes: Iterable[Write], session: StoreSession, progress: _Progress) -> None:
    queue = iter(writes)

    async def work() -> None:
        for write in queue:
            await _attempt(write, session, progress)
            if progress.stopped:
                return

    await asyncio.gather(*(work() for _ in range(PARALLEL_WRITES)))
    if progress.fatal is not None:
        raise progress.fatal


async def _attempt(write: Write, session: StoreSession, progress: _Progress) -> None:
    name = _name(write)
    try:
        with step("write", {Attribute.ACTION: type(write).__name__.lower(), **named(name)}):
            progress.done[name] = await _perform(write, session)
        progress.written.append(write)
    except ControllerError as error:
        progress.failures.append(Failure(name, error))
        progress.stopped = progress.stopped or error.reason in _STORE_WIDE
        if isinstance(write, Update | Adopt) and write.current.version is not None:
            # The version may not be the current one: the next comparison reads the store again.
            session.memory.forget(session.store, name, write.current.version)
    except Exception as error:  # noqa: BLE001 - raised by `_run` once the writes under way have ended.
        progress.fatal, progress.stopped = error, True


async def _perform(write: Write, session: StoreSession) -> InventoryEntry | None:
    provider, mark, fence = session.provider, session.mark, session.fence
    match write:
        case Create(secret):
            version = await provider.create(secret, mark=mark, revision=session.revision, fence=fence)
        case Update(secret, current, write=False, recorded=recorded):
            await provider.adopt(current, mark=mark, fence=fence)
            assert current.version is not None  # A secret without a version is written.
            return InventoryEntry(secret.name, current.version, recorded)
        case Update(secret, current):
            version = await provider.update(secret, current=current, mark=mark, revision=session.revision, fence=fence)
        case Adopt(secret, current, write=value_differs):
            await provider.adopt(current, mark=mark, fence=fence)
            if not value_differs:
                return _kept(write, current.version)
            current = replace(current, mark=mark)
            version = await provider.update(secret, current=current, mark=mark, revision=session.revision, fence=fence)
        case Prune(current):
            await provider.delete(current, fence=fence)
            return None
    session.memory.remember(session.store, secret.name, version, secret.value)
    return InventoryEntry(secret.name, version, secret.source_hash)


def _kept(adopt: Adopt, version: Version | None) -> InventoryEntry:
    assert version is not None  # A secret without a version is adopted with a write.
    return InventoryEntry(adopt.secret.name, version, adopt.secret.source_hash if adopt.compared else NOT_COMPARED)


def _report(plan: Plan, inventory: Inventory, progress: _Progress) -> Report:
    entries = {a.name: InventoryEntry(a.name, a.version, a.source_hash) for a in plan.unchanged}
    for write in plan.changes:
        name = _name(write)
        # What was not written keeps its record: the next plan sees that it differs.
        entry = progress.done[name] if name in progress.done else inventory.get(name)
        if entry is not None:
            entries[name] = entry
    written = progress.written
    synced = len(plan.unchanged) + sum(1 for write in written if not isinstance(write, Prune))

    def names(kind: type[Write]) -> tuple[SecretName, ...]:
        return tuple(sorted(_name(write) for write in written if isinstance(write, kind)))

    return Report(
        inventory=dict(sorted(entries.items())),
        synced=synced,
        wanted=sum(1 for action in plan.actions if not isinstance(action, Prune)),
        created=names(Create),
        updated=names(Update),
        adopted=names(Adopt),
        pruned=names(Prune),
        conflicts=plan.conflicts,
        failures=tuple(sorted(progress.failures, key=lambda failure: failure.name)),
        orphans=plan.orphans,
        held=plan.held,
        left=len(plan.changes) - len(written) - len(progress.failures),
    )


def _name(write: Write) -> SecretName:
    return write.secret.name if isinstance(write, Create | Update | Adopt) else write.current.name
