"""What the parts of one member share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lease_sharding.changes import Changes
from lease_sharding.errors import ApiError
from lease_sharding.fence import Clock
from lease_sharding.leases import GROUP, Lease, Names, labelled
from lease_sharding.protocol import LeaseClient
from lease_sharding.settings import Settings
from lease_sharding.view import View


@dataclass(slots=True)
class Counters:
    """What has happened since the member began; all of them only grow.

    Attributes:
        gained: shards claimed, whatever the reason.
        handovers: of these, those that their last owner had released.
        takeovers: of these, those whose last owner had lost its session.
        released: shards drained and released.
        lost: shards lost otherwise: with the session, or since somebody else wrote the claim.
        sessions: sessions begun.
        lapses: sessions lost.
        sessions_ended: dead members whose session was taken.
        writes: writes to the API server, failed ones too.
        conflicts: writes that found the Lease changed.
    """

    gained: int = 0
    handovers: int = 0
    takeovers: int = 0
    released: int = 0
    lost: int = 0
    sessions: int = 0
    lapses: int = 0
    sessions_ended: int = 0
    writes: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one member.

    Attributes:
        member: its name.
        settings: the group's.
        names: the group's.
        client: the API server.
        view: what is known of the group's Leases.
        clock: monotonic seconds that count on while the machine sleeps; deadlines are told by it.
        now: the time of day, for what people read in Leases.
        new_id: makes ids of sessions, never one twice.
        counters: what has happened.
        changes: told after the view, the session or a hold has changed.
    """

    member: str
    settings: Settings
    names: Names
    client: LeaseClient
    view: View
    clock: Clock
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    counters: Counters
    changes: Changes

    @property
    def retry_delay(self) -> float:
        """Seconds from a failed call to the next try."""
        return self.settings.renew_interval / 4

    def put(self, lease: Lease) -> Lease:
        """Take an answer to a write over into the view."""
        self.view.put(lease, self.clock())
        self.changes.note()
        return lease

    async def look_again(self, name: str) -> Lease | None:
        """Read one Lease as it is now and take it over into the view.

        Raises:
            ApiError: it could not be read.
        """
        lease = await self.client.get(name)
        if lease is not None:
            self.view.found(lease, self.clock())
        elif (known := self.view.get(name)) is not None:
            self.view.remove(name, known.resource_version)
        self.changes.note()
        return lease

    async def repair_label(self, lease: Lease | None) -> None:
        """Give a Lease its label back that no listing shows, since somebody removed it."""
        if lease is None or lease.labels.get(GROUP) == self.settings.group:
            return
        self.counters.writes += 1
        try:
            self.put(await self.client.update(labelled(lease, group=self.settings.group)))
        except ApiError:
            await asyncio.sleep(self.retry_delay)

    async def look_again_or_wait(self, name: str) -> bool:
        """Read one Lease after a conflict, or wait a moment if that fails; tell whether it was read."""
        self.counters.conflicts += 1
        try:
            await self.look_again(name)
        except ApiError:
            await asyncio.sleep(self.retry_delay)
            return False
        return True
