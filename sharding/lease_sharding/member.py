"""One member of a group: keeps a session, owns its share of the shards, hands them over. The package's front door."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from lease_sharding.assign import shard_of
from lease_sharding.caretaker import Caretaker
from lease_sharding.changes import Changes
from lease_sharding.claims import Claims
from lease_sharding.context import Context, Counters
from lease_sharding.decide import Decision, Standpoint, decide, overdue
from lease_sharding.errors import SettingsError, foreign
from lease_sharding.fence import Clock, OwnershipLost, ShardFence, boottime
from lease_sharding.leases import REMEMBERED_SESSIONS, Names
from lease_sharding.observe import Myself, Situation
from lease_sharding.protocol import LeaseClient, ShardHandler
from lease_sharding.session import Session, SessionOpener
from lease_sharding.settings import NAME_LENGTH, Settings, is_name
from lease_sharding.snapshot import Snapshot, snapshot_of
from lease_sharding.sync import Sync
from lease_sharding.unwilling import Unwilling
from lease_sharding.view import View

logger = logging.getLogger(__name__)

SHORTEST_SLEEP = 0.01
"""Seconds between two decisions that time alone brings on."""
PAUSE_PER_SHARD = 20e-6
"""Seconds after a decision, twice what it costs (measured): many changes of thousands of claims are seen together."""

T = TypeVar("T")


class Member:
    """One member of a group. `run` it as a task, and `stop` it before the process ends."""

    def __init__(
        self,
        *,
        client: LeaseClient,
        settings: Settings,
        member: str,
        handler: ShardHandler,
        clock: Clock = boottime,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Make a member that has not begun yet.

        Args:
            client: the Leases of the group.
            settings: the group's.
            member: a name that no other living member has, such as the pod's.
            handler: told which shards are gained and lost.
            clock: monotonic seconds that count on while the machine sleeps.
            now: the time of day, for what people read in Leases.
            new_id: makes ids of sessions, never one twice.

        Raises:
            SettingsError: `member` cannot be part of a Lease's name.
        """
        names = Names(settings.group, settings.shards)
        if not is_name(member) or len(names.session(member)) > NAME_LENGTH:
            raise SettingsError(
                f"member {foreign(member)!r} is not a name: lower-case letters, digits, '-' and '.', and "
                f"{names.session('')} must fit before it in {NAME_LENGTH} characters"
            )
        self._changes = Changes()
        self._context = Context(
            member=member,
            settings=settings,
            names=names,
            client=client,
            view=View(names, duration=settings.session_duration),
            clock=clock,
            now=now,
            new_id=new_id,
            counters=Counters(),
            changes=self._changes,
        )
        self._handler = handler
        self._sync = Sync(self._context, self._on_listed)
        self._opener = SessionOpener(self._context)
        self._caretaker = Caretaker(self._context)
        self._unwilling = Unwilling(settings.session_duration)
        self._session: Session | None = None
        self._claims: Claims | None = None
        self._own_ended: list[str] = []
        self._stop_by: float | None = None
        self._stopped = asyncio.Event()
        self._running = False
        self._left_to_lapse: tuple[int, ...] = ()

    # What the user asks.

    @property
    def name(self) -> str:
        """The member's name."""
        return self._context.member

    @property
    def counters(self) -> Counters:
        """What has happened since the member began."""
        return self._context.counters

    @property
    def session_id(self) -> str | None:
        """The id of the session that lasts now; None while there is none."""
        return self._session.id if self._session is not None and self._session.alive() else None

    @property
    def owned(self) -> frozenset[int]:
        """The shards that this member may act for now; those that it is draining are among them."""
        if self._claims is None or self.session_id is None:
            return frozenset()
        return frozenset(shard for shard, hold in self._claims.holds.items() if hold.told)

    def fence(self, shard: int) -> ShardFence:
        """Return the fence of a shard that this member owns.

        Raises:
            OwnershipLost: it does not own it.
        """
        fence = self._claims.fence(shard) if self._claims is not None else None
        if fence is None:
            raise OwnershipLost(f"shard {shard} is not this member's")
        return fence

    def fence_for(self, key: str) -> ShardFence:
        """Return the fence of the shard that a key is in; see `fence`."""
        return self.fence(self.shard_of(key))

    def shard_of(self, key: str) -> int:
        """Return the shard that a key is in."""
        return shard_of(key, self._context.settings.shards)

    def snapshot(self) -> Snapshot:
        """Return the group as this member sees it."""
        return snapshot_of(self._look(), group=self._context.settings.group)

    def overdue(self) -> tuple[int, ...]:
        """Return the shards that nobody serves although somebody should: an alarm if it lasts.

        Either nobody has claimed them in time, or this member could not let go of them: a call of theirs hangs.
        """
        situation = self._look()
        grace = self._context.settings.take_grace
        unclaimed = {claim.shard for claim in situation.claims if overdue(claim, situation, grace=grace)}
        hanging = self._claims.hanging if self._claims is not None else frozenset()
        return tuple(sorted(unclaimed | hanging))

    # Its life.

    async def run(self) -> None:
        """Be a member until `stop`.

        Raises:
            ShardCountMismatch: another shard count is in force; everything is lost before it is raised.
            Exception: whatever the handler raises; the process should end.
        """
        self._running = True
        syncing = self._task(self._sync.run())
        try:
            await self._until_stop(self._sync.ready.wait(), syncing)
            await self._until_stop(self._caretaker.agree(), syncing)
            while self._stop_by is None:
                await self._live(syncing)
        finally:
            await _end(syncing)
            await self._caretaker.close()
            self._running = False
            self._stopped.set()

    async def stop(self) -> tuple[int, ...]:
        """Drain and release every shard, end the session, and let `run` return.

        Returns:
            The shards whose work did not end within the drain time-out: their claims lapse with the session.
        """
        settings = self._context.settings
        self._stop_by = self._context.clock() + settings.drain_timeout + 2 * settings.request_timeout
        self._changes.note()
        if self._running:
            await self._stopped.wait()
        return self._left_to_lapse

    async def _live(self, syncing: asyncio.Task[None]) -> None:
        """Go through one session, from its opening to the end of the last call under it."""
        session = await self._until_stop(self._opener.open(tuple(self._own_ended)), syncing)
        if session is None:
            return
        claims = Claims(self._context, session, self._handler)
        self._session, self._claims = session, claims
        keeping = self._task(session.keep())
        others = [self._task(session.expire()), self._task(self._coordinate(session, claims))]
        try:
            await self._until(lambda: session.lost.is_set() or self._stop_by is not None, [*others, keeping, syncing])
            if session.alive():
                await self._leave(session, claims, [*others, keeping, syncing])
                await _end(keeping)  # No renewal must overtake the deletion.
                if not claims.holds and session.alive():
                    await session.close()
            claims.drop(session.reason or "this member is stopping")
            session.end("this member has stopped")
            await self._settle(claims, syncing)
        finally:
            session.end("this member has failed")
            await _end(keeping, *others)
            self._left_to_lapse = tuple(sorted(claims.holds))
            await claims.cut_off()
        self._own_ended = [session.id, *self._own_ended][:REMEMBERED_SESSIONS]

    async def _coordinate(self, session: Session, claims: Claims) -> None:
        """Decide, and begin what was decided, whenever something changed or the time has come."""
        while session.alive():
            seen, situation = self._changes.count, self._look()
            claims.check(situation)
            own = situation.sessions.get(self.name)
            if own is None or (own.id != session.id and own.record.lease.version != session.lease.version):
                session.poke()  # Somebody wrote or deleted it: the next renewal finds out for sure.
            decision = self._decide(situation, session, claims)
            self._act(decision, situation, claims)
            await asyncio.sleep(PAUSE_PER_SHARD * self._context.settings.shards)
            await self._sleep(seen, until=decision.again)

    def _decide(self, situation: Situation, session: Session, claims: Claims) -> Decision:
        settings = self._context.settings
        standpoint = Standpoint(
            member=self.name,
            draining=session.draining,
            busy=claims.busy,
            held=frozenset(claims.holds) - claims.busy,
            unwilling=self._unwilling.members(situation),
        )
        decision = decide(situation, standpoint, grace=settings.take_grace, patience=settings.session_duration)
        times = [time for time in (decision.again, self._unwilling.next(situation.now)) if time is not None]
        return dataclasses.replace(decision, again=min(times, default=None))

    def _act(self, decision: Decision, situation: Situation, claims: Claims) -> None:
        for member in decision.end:
            self._caretaker.end_session(member)
        for shard in decision.restore:
            self._caretaker.restore(shard, epoch=situation.claims[shard].epoch)
        for member in decision.forget:
            self._caretaker.forget(member)
        for shard, meant in decision.take.items():
            claims.take(situation.claims[shard])
            if meant != self.name:
                self._unwilling.note(meant, situation)
        for shard in decision.release:
            if shard in claims.holds:
                claims.release(shard)

    async def _leave(self, session: Session, claims: Claims, tasks: list[asyncio.Task[None]]) -> None:
        """Drain and release everything; what does not end in time is left to lapse with the session."""
        session.drain()
        self._changes.note()
        await self._until(lambda: session.lost.is_set() or not claims.holds or self._too_late(), tasks)

    async def _settle(self, claims: Claims, syncing: asyncio.Task[None]) -> None:
        """Wait until the last call has ended; while stopping, no longer than a drain may take."""
        settling = self._task(claims.settle())
        try:
            await self._until(lambda: settling.done() or self._too_late(), [syncing])
        finally:
            await _end(settling)

    def _too_late(self) -> bool:
        return self._stop_by is not None and self._context.clock() >= self._stop_by

    def _on_listed(self, started: float) -> None:
        """Drop what a listing does not show any more, and confirm the rest."""
        if self._session is not None and self._claims is not None:
            self._claims.check(self._look())
            self._session.confirm(started)
            self._caretaker.check_count()

    def _look(self) -> Situation:
        epochs = self._claims.epochs if self._claims is not None else {}
        session = self._session.id if self._session is not None else None
        return self._context.view.look(self._context.clock(), Myself(self.name, session, epochs))

    # Waiting.

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._changes.note())
        return task

    async def _sleep(self, seen: int, *, until: float | None) -> None:
        patience = None if until is None else max(until - self._context.clock(), SHORTEST_SLEEP)
        await self._changes.after(seen, patience=patience)

    async def _until(self, condition: Callable[[], bool], tasks: list[asyncio.Task[None]]) -> None:
        """Wait for a condition.

        Raises:
            Exception: what went wrong in the background.
        """
        while True:
            seen = self._changes.count
            failures = [self._caretaker.failure, self._claims.failure if self._claims is not None else None]
            failures += [task.exception() for task in tasks if task.done() and not task.cancelled()]
            if failure := next((failure for failure in failures if failure is not None), None):
                raise failure
            if condition():
                return
            await self._sleep(seen, until=self._stop_by)

    async def _until_stop(self, work: Awaitable[T], syncing: asyncio.Task[None]) -> T | None:
        """Return what the work returns, or None if the member is told to stop first."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._changes.note())
        try:
            await self._until(lambda: task.done() or self._stop_by is not None, [syncing])
            return task.result() if task.done() else None
        finally:
            await _end(task)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended; what went wrong in them was raised before."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
