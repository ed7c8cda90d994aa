"""What this package needs of the API server, and what it asks of its user."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lease_sharding.fence import Fence
from lease_sharding.leases import Lease


@dataclass(frozen=True, slots=True)
class LeaseList:
    """A listing: the group's Leases, all as they were at one moment."""

    leases: Sequence[Lease]
    resource_version: str


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """What a watch tells: a Lease as it is now, or as it was when it was deleted, in the deletion's version."""

    lease: Lease
    deleted: bool = False


class LeaseClient(Protocol):
    """The Leases of one group in one namespace. Every call ends within the group's request time-out.

    Each call may raise `ApiError`; where its `unknown` is set, a write may have happened, or may happen a little later.
    """

    async def list(self) -> LeaseList:
        """Return the group's Leases as they are now (a quorum read), by the group's label."""
        ...

    async def get(self, name: str) -> Lease | None:
        """Return one Lease as it is now (a quorum read), labelled or not; None if there is none."""
        ...

    async def create(self, lease: Lease) -> Lease:
        """Create a Lease; `Conflict` if the name is taken."""
        ...

    async def update(self, lease: Lease) -> Lease:
        """Replace a Lease if it still is in the version that it was read in; else `Conflict`."""
        ...

    async def delete(self, lease: Lease) -> None:
        """Delete a Lease if it still is in the version that it was read in, else `Conflict`; gone is fine."""
        ...

    def watch(self, resource_version: str) -> AsyncGenerator[LeaseChange, None] | None:
        """Return what changes after a listing's version, until the stream ends or breaks (`ApiError`).

        None means that there is no watch; the member lists more often then.
        """
        ...


class ShardHandler(Protocol):
    """What a member tells its user. The calls are made on the member's event loop."""

    def on_gained(self, shard: int, fence: Fence) -> None:
        """Begin to work for the shard; check the fence before each effect."""
        ...

    def on_lost(self, shard: int) -> None:
        """End all work for the shard; the fence fails already. Called once for each `on_gained`."""
        ...

    async def drain(self, shard: int) -> None:
        """Begin nothing new for the shard, and return as soon as no call of it is running any more.

        While the fence still holds, work under way may finish; when it takes too long, `on_lost` comes, and this call
        goes on. The shard is not released before it returns. It may also be called after `on_lost`.
        """
        ...
