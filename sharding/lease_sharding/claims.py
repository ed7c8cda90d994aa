"""The shards that a member holds under one session: taken, watched over, drained, released, lost."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from lease_sharding.context import Context
from lease_sharding.errors import ApiError, Conflict
from lease_sharding.fence import ShardFence
from lease_sharding.leases import ClaimRecord, Lease, claim_record, claimed, released, session_record
from lease_sharding.observe import ClaimState, ClaimView, Situation
from lease_sharding.protocol import ShardHandler
from lease_sharding.session import Session

logger = logging.getLogger(__name__)

WRITES_AT_ONCE = 16
"""Claims written at a time; a member that gains hundreds at once must not keep its own renewal waiting."""


class Phase(enum.Enum):
    """Where a held shard stands."""

    TAKING = enum.auto()
    HELD = enum.auto()
    DRAINING = enum.auto()
    RELEASING = enum.auto()
    LOST = enum.auto()
    """It is not the member's any more, but calls of it may still be running."""


@dataclass(slots=True, eq=False)
class Hold:
    """One shard that is being taken, is held, or is being given up.

    Attributes:
        fence: None until it is gained.
        told: `on_gained` was called, and `on_lost` was not.
        draining: the drain that is under way.
    """

    shard: int
    epoch: int
    phase: Phase = Phase.TAKING
    fence: ShardFence | None = None
    told: bool = False
    draining: asyncio.Task[None] | None = None


class Claims:
    """The claims of one session."""

    def __init__(self, context: Context, session: Session, handler: ShardHandler) -> None:
        self._context = context
        self._session = session
        self._handler = handler
        self._holds: dict[int, Hold] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)
        self.failure: BaseException | None = None

    @property
    def epochs(self) -> Mapping[int, int]:
        """The shards that are this member's, or may be at any moment, with their epochs."""
        return {hold.shard: hold.epoch for hold in self._holds.values() if hold.phase is not Phase.LOST}

    @property
    def busy(self) -> frozenset[int]:
        """The shards that are not to be touched: something is under way with them."""
        return frozenset(hold.shard for hold in self._holds.values() if hold.phase is not Phase.HELD)

    @property
    def holds(self) -> Mapping[int, Hold]:
        """The holds by shard."""
        return self._holds

    @property
    def hanging(self) -> frozenset[int]:
        """The shards that this member still keeps from others, although it may not act for them any more."""
        return frozenset(hold.shard for hold in self._holds.values() if hold.fence is not None and not hold.told)

    def fence(self, shard: int) -> ShardFence | None:
        """Return the fence of a shard that is held; None if it is not."""
        hold = self._holds.get(shard)
        return hold.fence if hold is not None and hold.told else None

    def take(self, claim: ClaimView) -> None:
        """Begin to claim a shard that may be claimed."""
        hold = self._holds[claim.shard] = Hold(claim.shard, claim.next_epoch)
        self._start(self._take(hold, claim), f"take-{claim.shard}")

    def release(self, shard: int) -> None:
        """Begin to drain a shard that is held, and release it then."""
        hold = self._holds[shard]
        hold.phase = Phase.DRAINING
        hold.draining = asyncio.create_task(self._handler.drain(shard), name=f"drain-{shard}")
        self._start(self._release(hold), f"release-{shard}")

    def check(self, situation: Situation) -> None:
        """Drop what somebody else has written over: it is not this member's any more."""
        for hold in list(self._holds.values()):
            if hold.phase in (Phase.HELD, Phase.DRAINING) and not self._is_mine(
                situation.claims[hold.shard].record, hold
            ):
                self._lose(hold, "its claim was written or deleted by somebody else")

    def drop(self, reason: str) -> None:
        """Lose everything at once, with the session."""
        for hold in list(self._holds.values()):
            if hold.phase in (Phase.HELD, Phase.DRAINING):
                self._lose(hold, reason)

    async def settle(self) -> None:
        """Wait until nothing is under way any more: no call of a shard that was lost, no write of a claim."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def cut_off(self) -> None:
        """End what is under way, and forget what is held: the claims are left to lapse with the session."""
        tasks = [*self._tasks, *(hold.draining for hold in self._holds.values() if hold.draining is not None)]
        for hold in self._holds.values():
            self._tell_lost(hold, "this member has stopped")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
        self._context.changes.note()

    def _is_mine(self, record: ClaimRecord | None, hold: Hold) -> bool:
        mine = (self._context.member, self._session.id, hold.epoch, True)
        return record is not None and (record.holder, record.session, record.epoch, record.sealed) == mine

    def _shows(self, lease: Lease | None, hold: Hold) -> bool:
        return lease is not None and self._is_mine(claim_record(hold.shard, lease), hold)

    async def _take(self, hold: Hold, claim: ClaimView) -> None:
        try:
            record = claim.record
            if record is None or not await self._may_take(claim.state, record):
                return
            if (lease := await self._write_claim(hold, record.lease)) is not None:
                self._gain(hold, lease, claim)
        finally:
            if hold.phase is Phase.TAKING:
                self._holds.pop(hold.shard, None)

    async def _may_take(self, state: ClaimState, record: ClaimRecord) -> bool:
        """Look once more at the session Lease whose absence is the reason to claim: nothing else compares it."""
        if state is not ClaimState.UNCERTAIN or not record.sealed:
            return True
        if record.holder is None or record.holder == self._context.member:
            return True
        try:
            lease = await self._context.look_again(self._context.names.session(record.holder))
        except ApiError:
            await asyncio.sleep(self._context.retry_delay)
            return False
        if lease is None or session_record(record.holder, lease).session != record.session:
            return True
        await self._context.repair_label(lease)
        await asyncio.sleep(self._context.retry_delay)
        return False

    async def _write_claim(self, hold: Hold, before: Lease) -> Lease | None:
        """Write the claim, as often as it takes to know whether it is this member's; return it if it is."""
        context = self._context
        name = context.names.claim(hold.shard)
        while self._session.alive():
            lease = claimed(
                before,
                names=context.names,
                shard=hold.shard,
                member=context.member,
                session=self._session.id,
                epoch=hold.epoch,
                duration=context.settings.session_duration,
                now=context.now(),
            )
            try:
                return await self._write(lease)
            except Conflict:
                if not await context.look_again_or_wait(name):
                    continue
                found = context.view.get(name)
                if self._shows(found, hold):  # An earlier try was carried out, although no answer came.
                    return found
                return None
            except ApiError as error:
                logger.info("Claim failed", extra={"shard": hold.shard, "status": error.status, "error": str(error)})
                await asyncio.sleep(context.retry_delay)
                if not error.unknown:
                    return None
        return None

    async def _write(self, lease: Lease) -> Lease:
        async with self._writing:
            self._context.counters.writes += 1
            return self._context.put(await self._context.client.update(lease))

    def _gain(self, hold: Hold, lease: Lease, claim: ClaimView) -> None:
        if not self._session.alive() or not self._shows(self._context.view.get(lease.name), hold):
            return
        counters = self._context.counters
        counters.gained += 1
        counters.handovers += claim.state is ClaimState.FREE
        counters.takeovers += claim.state is not ClaimState.FREE and claim.record is not None
        hold.fence = ShardFence(
            shard=hold.shard, epoch=hold.epoch, deadline=self._session.deadline, clock=self._context.clock
        )
        hold.phase, hold.told = Phase.HELD, True
        previous = claim.record.holder if claim.record is not None else None
        logger.info(
            "Shard gained",
            extra={"shard": hold.shard, "epoch": hold.epoch, "found": str(claim.state), "previous": previous},
        )
        self._handler.on_gained(hold.shard, hold.fence)

    def _tell_lost(self, hold: Hold, reason: str) -> None:
        if hold.fence is not None:
            hold.fence.revoke(reason)
        if hold.told:
            hold.told = False
            self._handler.on_lost(hold.shard)

    def _lose(self, hold: Hold, reason: str) -> None:
        logger.warning("Shard lost", extra={"shard": hold.shard, "epoch": hold.epoch, "why": reason})
        self._context.counters.lost += 1
        draining = hold.phase is Phase.DRAINING  # Its release goes on, and ends when the drain does.
        hold.phase = Phase.LOST
        self._tell_lost(hold, reason)
        if not draining:
            self._start(self._wind_up(hold), f"wind-up-{hold.shard}")

    async def _wind_up(self, hold: Hold) -> None:
        await self._handler.drain(hold.shard)
        self._holds.pop(hold.shard, None)

    async def _release(self, hold: Hold) -> None:
        drain = hold.draining
        assert drain is not None
        _, late = await asyncio.wait([drain], timeout=self._context.settings.drain_timeout)
        if late:
            logger.warning("Shard drains slowly", extra={"shard": hold.shard})
            self._tell_lost(hold, "it is being handed over, and its work took too long")
        await drain
        if hold.phase is not Phase.LOST:
            self._tell_lost(hold, "it is being handed over")
            hold.phase = Phase.RELEASING
            await self._write_release(hold)
        self._holds.pop(hold.shard, None)

    async def _write_release(self, hold: Hold) -> None:
        """Write that the shard is free, as often as it takes to know that it is not this member's any more."""
        context, name = self._context, self._context.names.claim(hold.shard)
        while self._session.alive():
            lease = context.view.get(name)
            if lease is None or not self._shows(lease, hold):
                return
            try:
                await self._write(released(lease, now=context.now()))
            except Conflict:
                await context.look_again_or_wait(name)
            except ApiError as error:
                logger.info("Release failed", extra={"shard": hold.shard, "status": error.status, "error": str(error)})
                await asyncio.sleep(context.retry_delay)
            else:
                context.counters.released += 1
                logger.info("Shard released", extra={"shard": hold.shard, "epoch": hold.epoch})
                return
