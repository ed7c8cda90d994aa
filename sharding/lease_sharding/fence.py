"""The check that stands before every effect: may this member still act for this key, for long enough?"""

from __future__ import annotations

from typing import Protocol


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
