"""The check that stands before every effect: may this member still act for this key, for long enough?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Clock = Callable[[], float]
"""Monotonic seconds."""


def boottime() -> float:
    """Return seconds since boot, those included in which the machine slept: a suspended process must expire too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class OwnershipLost(Exception):  # noqa: N818 - it tells an event, as asyncio.CancelledError does, not a fault.
    """The member may not act for this key any more; whoever owns it now will."""


class Fence(Protocol):
    """Stands before every effect on one shard."""

    def check(self, margin: float) -> None:
        """Return if the right to act lasts at least `margin` more seconds.

        Args:
            margin: how long the effect may take at most, in seconds.

        Raises:
            OwnershipLost: it does not; the effect must not begin.
        """
        ...


class SoleMemberFence:
    """The fence of a member that has no others beside it: it holds until the member stops.

    There is no deadline, since nobody takes over; after `revoke` every check fails, so that a graceful stop begins no
    new effect.
    """

    def __init__(self) -> None:
        self._revoked = False

    def check(self, margin: float) -> None:
        """Return unless `revoke` was called; see `Fence.check`."""
        del margin  # There is no deadline to compare it with.
        if self._revoked:
            raise OwnershipLost("this member is stopping")

    def revoke(self) -> None:
        """Let every later check fail."""
        self._revoked = True


@dataclass(frozen=True, slots=True)
class FencingToken:
    """The right to act for a shard.

    Attributes:
        epoch: grows with every owner; where a store can compare, a lower one is a stale owner's.
        deadline: until when, by the member's own clock; renewals move it.
    """

    shard: int
    epoch: int
    deadline: float


class ShardFence:
    """The fence of one shard in one epoch. Lost once, it stays so: who regains the shard gets another fence.

    Safe to check from any thread.
    """

    def __init__(self, *, shard: int, epoch: int, deadline: Callable[[], float], clock: Clock) -> None:
        """Make a fence.

        Args:
            shard: its number.
            epoch: of the claim.
            deadline: returns until when the claim's session is safe to rely on; in the past once it is lost.
            clock: the clock that the deadline is told by.
        """
        self.shard = shard
        self.epoch = epoch
        self._deadline = deadline
        self._clock = clock
        self._revoked = ""

    @property
    def token(self) -> FencingToken:
        """The right to act as it is now; its deadline has passed once it is lost."""
        return FencingToken(self.shard, self.epoch, float("-inf") if self._revoked else self._deadline())

    def check(self, margin: float) -> None:
        """Return if the shard stays this member's for at least `margin` more seconds; see `Fence.check`."""
        if self._revoked:
            raise OwnershipLost(f"shard {self.shard}: {self._revoked}")
        # The deadline first: if the process sleeps between the two lines, the clock that is read then counts.
        deadline = self._deadline()
        if (left := deadline - self._clock()) < margin:
            raise OwnershipLost(f"shard {self.shard}: the session is safe for {max(left, 0):.1f} s, not {margin:g} s")

    def revoke(self, reason: str) -> None:
        """Let every later check fail."""
        self._revoked = self._revoked or reason
