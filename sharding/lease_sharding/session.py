"""A member's session: opened, renewed until it is lost or closed, and never resumed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection

from lease_sharding.context import Context
from lease_sharding.errors import ApiError, Conflict
from lease_sharding.leases import Lease, SessionRecord, opened, renewed, session_record
from lease_sharding.observe import Observation, observe

logger = logging.getLogger(__name__)

OPENING_POLL = 0.5
"""Seconds between two looks at the Lease of an earlier process of the same name."""
SHORTEST_SLEEP = 0.001
"""Seconds: the loop's clock and the session's may run a little differently."""


class Session:
    """One session of a member, from its opening to its loss.

    It is safe to rely on until its deadline: both the last renewal and the last listing that showed the member's claims
    to be its own must have *begun* less than the session's duration, less the margin, ago.
    """

    def __init__(self, context: Context, lease: Lease, *, session: str, started: float) -> None:
        """Make the session that a Lease begins.

        Args:
            context: the member's surroundings.
            lease: as the API server has it now.
            session: the id.
            started: when the request began that wrote it.
        """
        self.id = session
        self.lease = lease
        self.draining = False
        self.lost = asyncio.Event()
        self.reason = ""
        self.opened = started
        self.renewed = started
        self._context = context
        self._confirmed = started
        self._usable = context.settings.session_duration - context.settings.margin
        self._poked = asyncio.Event()

    def deadline(self) -> float:
        """Return until when the session is safe to rely on; long ago once it is lost."""
        return float("-inf") if self.reason else min(self.renewed, self._confirmed) + self._usable

    def alive(self) -> bool:
        """Tell whether the session may be relied on; one whose deadline has passed is lost from then on."""
        if not self.reason and self._context.clock() >= self.deadline():
            self.lose("it was not renewed and confirmed in time")
        return not self.reason

    def lose(self, reason: str) -> None:
        """End the session for good: every fence under it fails from now on."""
        if not self.reason:
            self._context.counters.lapses += 1
            logger.warning("Session lost", extra={"member": self._context.member, "session": self.id, "why": reason})
            self.end(reason)

    def end(self, reason: str) -> None:
        """End the session as it is meant to end."""
        self.reason = self.reason or reason
        self.lost.set()
        self._poked.set()
        self._context.changes.note()

    def confirm(self, started: float) -> None:
        """Note that a listing that began at `started` showed the claims that are held, and no other is relied on."""
        if self.alive():
            self._confirmed = max(self._confirmed, started)

    def poke(self) -> None:
        """Let the next renewal come at once."""
        self._poked.set()

    def drain(self) -> None:
        """Tell the others, by a renewal now, that this member takes no shard any more."""
        self.draining = True
        self.poke()

    async def keep(self) -> None:
        """Renew the session until it is lost."""
        settings = self._context.settings
        due = self.renewed + settings.renew_interval
        while self.alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due - self._context.clock(), 0)):
                    await self._poked.wait()
            self._poked.clear()
            if not self.alive():
                return
            started = self._context.clock()
            if await self._renew(started):
                due = started + settings.renew_interval
            else:
                due = self._context.clock() + self._context.retry_delay

    async def expire(self) -> None:
        """Wait until the session is lost, and see to it that it is at its deadline, whatever hangs."""
        while self.alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.deadline() - self._context.clock(), SHORTEST_SLEEP)):
                    await self.lost.wait()

    async def close(self) -> bool:
        """Delete the session's Lease, after all claims were released; tell whether that is known to be done."""
        context = self._context
        for _ in range(3):  # A renewal without an answer, or an edit by hand, may have changed it.
            context.counters.writes += 1
            try:
                await context.client.delete(self.lease)
            except Conflict:
                if not await context.look_again_or_wait(self.lease.name) or not self._adopt():
                    return False
            except ApiError:
                return False
            else:
                context.view.remove(self.lease.name, self.lease.resource_version)
                return True
        return False

    async def _renew(self, started: float) -> bool:
        context, settings = self._context, self._context.settings
        lease = renewed(
            self.lease,
            group=settings.group,
            duration=settings.session_duration,
            draining=self.draining,
            now=context.now(),
        )
        context.counters.writes += 1
        try:
            answer = await context.client.update(lease)
        except Conflict:
            if await context.look_again_or_wait(lease.name):
                if self._adopt():
                    self.poke()
                else:
                    self.lose("its Lease was taken over or deleted")
            return False
        except ApiError as error:
            logger.info("Renewal failed", extra={"member": context.member, "status": error.status, "error": str(error)})
            return False
        if not self.alive():  # Too late: others may have taken this member for dead while the answer was under way.
            return False
        self.lease = context.put(answer)
        self.renewed = started
        return True

    def _adopt(self) -> bool:
        """Go on from the Lease as it is now, if it still is this session's: a lost answer or an edit changed it."""
        lease = self._context.view.get(self.lease.name)
        if lease is None or session_record(self._context.member, lease).session != self.id:
            return False
        self.lease = lease
        return True


class SessionOpener:
    """Opens one session after the other for a member."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._name = context.names.session(context.member)
        self._told: str | None = None

    async def open(self, ended: Collection[str]) -> Session:
        """Begin a session; tries until it succeeds.

        Another process that has, or had, a session under this name is waited out: nothing tells whether it still acts.

        Args:
            ended: this process's own sessions, the calls of which have all ended.
        """
        waited: Observation | None = None
        own = set(ended)
        while True:
            # A new id for each try: one that was written without an answer may have been taken for dead since.
            session = self._context.new_id()
            with contextlib.suppress(ApiError):
                found = await self._context.client.get(self._name)
                record = session_record(self._context.member, found) if found is not None else None
                if found is not None and record is not None and record.session not in {None, *own}:
                    waited = observe(waited, found, self._context.clock())
                    duration = max(record.duration or 0, self._context.settings.session_duration)
                    if (left := waited.seen + duration - self._context.clock()) > 0:
                        self._tell_wait(record)
                        await asyncio.sleep(min(left, OPENING_POLL))
                        continue
                own.add(session)
                started = self._context.clock()
                before = (record.session,) if record is not None and record.session is not None else ()
                lease = await self._write(found, session, (*before, *ended))
                logger.info("Session opened", extra={"member": self._context.member, "session": session})
                self._context.counters.sessions += 1
                return Session(self._context, lease, session=session, started=started)
            await asyncio.sleep(self._context.retry_delay)

    async def _write(self, found: Lease | None, session: str, ended: tuple[str, ...]) -> Lease:
        context = self._context
        lease = opened(
            found or Lease(name=self._name),
            group=context.settings.group,
            member=context.member,
            session=session,
            ended=ended,
            duration=context.settings.session_duration,
            now=context.now(),
        )
        context.counters.writes += 1
        answer = await (context.client.create(lease) if found is None else context.client.update(lease))
        return context.put(answer)

    def _tell_wait(self, record: SessionRecord) -> None:
        if record.session != self._told:
            self._told = record.session
            logger.warning(
                "Waiting for another process of this name, or its session to lapse",
                extra={"member": record.member, "session": record.session},
            )
