"""What any member does for the group: takes dead members' sessions, removes Leases of no use, keeps the config."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lease_sharding.context import Context
from lease_sharding.errors import ApiError, Conflict, ShardCountMismatch, foreign
from lease_sharding.leases import GROUP, SHARD_COUNT, Lease, config_lease, ended, placeholder

logger = logging.getLogger(__name__)


class Made(enum.Enum):
    """What came of a write."""

    DONE = enum.auto()
    LOOKED_AGAIN = enum.auto()
    """Somebody else wrote the Lease meanwhile; the view has it as it is now."""
    FAILED = enum.auto()


class Caretaker:
    """Runs these duties in the background, one a Lease at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failure: BaseException | None = None

    def end_session(self, member: str) -> None:
        """Take a dead member's session Lease: if it is only slow, its next renewal fails, and it knows."""
        self._start(self._context.names.session(member), self._end_session)

    def restore(self, shard: int, *, epoch: int) -> None:
        """Make a claim for a shard that has none, with the highest epoch that is known."""
        lease = placeholder(self._context.names, shard, epoch=epoch)
        self._start(lease.name, lambda _: self._create(lease))

    def forget(self, member: str) -> None:
        """Delete the Lease of a session that ended and that no claim refers to."""
        self._start(self._context.names.session(member), self._forget)

    def check_count(self) -> None:
        """Compare the shard count that is in force with this member's, and write it where it was lost.

        Raises:
            ShardCountMismatch: they differ.
        """
        lease = self._context.view.get(self._context.names.config)
        if self._told(lease) is None:
            self._start(self._context.names.config, self._write_count)

    async def agree(self) -> None:
        """Make sure that this member's shard count is in force, before it takes anything.

        Raises:
            ShardCountMismatch: another one is.
        """
        view, config = self._context.view, self._context.names.config
        while self._told(view.get(config)) is None:
            for lease in view.leases():
                self._told(lease)  # Somebody deleted the config; the claims still tell.
            await self._write_count(config)

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, name: str, work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        if name in self._tasks:
            return
        task = self._tasks[name] = asyncio.create_task(work(name), name=f"care-{name}")
        task.add_done_callback(lambda done: self._finished(name, done))

    def _finished(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
        self._context.changes.note()

    async def _end_session(self, name: str) -> None:
        lease = self._context.view.get(name)
        # In a conflict it was renewed after all, or another member was faster.
        if lease is not None and await self._attempt(name, self._context.client.update(ended(lease))) is Made.DONE:
            self._context.counters.sessions_ended += 1
            logger.warning("Dead member's session taken", extra={"lease": name, "holder": lease.holder})

    async def _create(self, lease: Lease) -> None:
        context, name = self._context, lease.name
        # In a conflict another member was faster, or it lost the label that it is listed by.
        if await self._attempt(name, context.client.create(lease)) is Made.LOOKED_AGAIN:
            await context.repair_label(context.view.get(name))

    async def _forget(self, name: str) -> None:
        context, lease = self._context, self._context.view.get(name)
        if lease is not None and await self._attempt(name, context.client.delete(lease)) is Made.DONE:
            context.view.remove(name, lease.resource_version)

    async def _write_count(self, name: str) -> None:
        context = self._context
        made = await self._attempt(name, context.client.create(config_lease(context.names)))
        if made is Made.LOOKED_AGAIN and (found := context.view.get(name)) is not None:
            await self._repair(found)

    async def _attempt(self, name: str, write: Awaitable[Lease | None]) -> Made:
        """Write one Lease; after a conflict look at it again, after any other failure wait a moment."""
        context = self._context
        context.counters.writes += 1
        try:
            if (lease := await write) is not None:
                context.put(lease)
        except Conflict:
            return Made.LOOKED_AGAIN if await context.look_again_or_wait(name) else Made.FAILED
        except ApiError as error:
            logger.info("Lease not written", extra={"lease": name, "status": error.status, "error": str(error)})
            await asyncio.sleep(context.retry_delay)
            return Made.FAILED
        return Made.DONE

    async def _repair(self, found: Lease) -> None:
        """Restore the config's annotation or label where somebody removed it."""
        context, told = self._context, self._told(found)
        if told is not None and found.labels.get(GROUP) == context.settings.group:
            return
        await self._attempt(found.name, context.client.update(config_lease(context.names, found)))

    def _told(self, lease: Lease | None) -> str | None:
        """Return the shard count that a Lease tells, None if it tells none; it is this member's own.

        Raises:
            ShardCountMismatch: it is not.
        """
        count = None if lease is None else lease.annotations.get(SHARD_COUNT)
        if lease is None or not count or count == str(self._context.names.shards):
            return count or None
        group = self._context.settings.group
        raise ShardCountMismatch(
            f"this member is set to {self._context.names.shards} shards, but Lease {lease.name} says {foreign(count)}. "
            f"Set the shard count to {foreign(count)}; or, to change it, stop every member, delete all Leases with the "
            f"label {GROUP}={group}, and start them again"
        )
