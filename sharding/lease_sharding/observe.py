"""What an observer knows of the group's Leases, and what follows from it. Pure: time is an argument.

Whether a session has lapsed is judged by the observer's own monotonic clock, from the moment when it first saw the
Lease in its present version (the rule of client-go's leader election). The clocks of other machines do not matter.

A shard may be claimed at once only where it is written that its last holder let go or lost its session. Anything else
that is not a living claim (deleted, edited by hand, of an unknown session) is `UNCERTAIN`: somebody may still act for
the shard, but no longer than one session, since every holder has to see its claim in each listing.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from lease_sharding.leases import ClaimRecord, Lease, SessionRecord


@dataclass(frozen=True, slots=True)
class Observation:
    """A Lease in one version, and when the observer saw that version first, by its own clock."""

    lease: Lease
    seen: float


def observe(previous: Observation | None, lease: Lease, now: float) -> Observation:
    """Return the observation after a look at a Lease: time counts on while its version stays the same."""
    if previous is not None and previous.lease.version == lease.version:
        return previous
    return Observation(lease, now)


class SessionState(enum.StrEnum):
    """What a session Lease means to its observer."""

    LIVE = "live"
    """It was renewed recently."""
    DRAINING = "draining"
    """Likewise, but its member is about to leave and takes nothing."""
    LAPSED = "lapsed"
    """It was not renewed for too long. Its member is dead, or about to notice that it is too late."""
    ENDED = "ended"
    """Its member, or who took over from it, has ended it."""


LIVING = frozenset({SessionState.LIVE, SessionState.DRAINING})


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session Lease, as its observer sees it."""

    record: SessionRecord
    seen: float
    state: SessionState
    expires: float

    @property
    def id(self) -> str | None:
        """The id of the session that lasts or has lapsed; None if it has ended."""
        return self.record.session


def view_session(record: SessionRecord, seen: float, *, now: float, duration: float) -> SessionView:
    """Return what a session Lease means now.

    Args:
        record: what it says.
        seen: when its present version was seen first.
        now: the observer's time.
        duration: the observer's own session duration, below which none is believed to be.
    """
    expires = seen + max(record.duration or 0, duration)
    if record.session is None:
        state = SessionState.ENDED
    elif now >= expires:
        state = SessionState.LAPSED
    else:
        state = SessionState.DRAINING if record.draining else SessionState.LIVE
    return SessionView(record, seen, state, expires)


HIGHEST_EPOCH = 2**30
"""No shard changes hands so often; a higher number was put there by hand, and the field ends at 2³¹ - 1."""


class ClaimState(enum.StrEnum):
    """What a claim, or its absence, means to its observer."""

    HELD = "held"
    """Its holder's session lasts."""
    LAPSED = "lapsed"
    """Its holder's session has lapsed; whoever takes over has to take the session first."""
    DEAD = "dead"
    """It is written that the session that it was held under has ended: anyone may claim the shard at once."""
    FREE = "free"
    """Its last holder gave it up: likewise."""
    UNCERTAIN = "uncertain"
    """None of these: it is waited out."""


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A shard, as its observer sees it.

    Attributes:
        record: what its claim says, None if there is none.
        since: when the observer first saw it so.
        claimable: from when on anyone may claim it; None if it is held, if its holder's session must be taken first, or
            if there is no claim to write into.
        epoch: the highest one that the observer has seen, even if the claim was deleted or edited since.
    """

    shard: int
    record: ClaimRecord | None
    state: ClaimState
    since: float
    claimable: float | None
    epoch: int = 0

    @property
    def next_epoch(self) -> int:
        """The epoch of its next owner: higher than all before, as far as anybody remembers."""
        written = self.record.epoch if self.record is not None else 0
        return max(self.epoch, written if written < HIGHEST_EPOCH else 0) + 1

    @property
    def owner(self) -> str | None:
        """The member that owns the shard now, None if nobody does."""
        return self.record.holder if self.record is not None and self.state is ClaimState.HELD else None


@dataclass(frozen=True, slots=True)
class Myself:
    """What a member knows of itself that the Leases do not tell.

    Attributes:
        member: its name.
        session: its session, None while it has none.
        epochs: the shards that it holds, or is about to hold or release, with their epochs.
    """

    member: str
    session: str | None
    epochs: Mapping[int, int]


def claim_state(
    record: ClaimRecord | None, holder: SessionView | None, myself: Myself, *, restored: bool = False
) -> ClaimState:
    """Return what a claim means.

    A claim that was edited or restored by hand says nothing of the member that held the shard before, and neither does
    one in the observer's own name that it does not know of.

    Args:
        record: what it says; None if there is none.
        holder: its holder's session Lease; None if there is none.
        myself: the observer.
        restored: a higher epoch of the shard was seen not long ago.
    """
    if record is None or not record.sealed or restored:
        return ClaimState.UNCERTAIN
    if record.holder is None:
        return ClaimState.FREE
    if holder is None or record.session is None:
        return ClaimState.UNCERTAIN
    if record.session in holder.record.ended:
        return ClaimState.DEAD
    if record.session != holder.id:
        return ClaimState.UNCERTAIN
    if record.holder == myself.member and record.session == myself.session:
        return ClaimState.HELD if myself.epochs.get(record.shard) == record.epoch else ClaimState.UNCERTAIN
    return ClaimState.HELD if holder.state in LIVING else ClaimState.LAPSED


@dataclass(frozen=True)
class Situation:
    """The whole group at one moment, as one observer sees it."""

    now: float
    sessions: Mapping[str, SessionView]
    claims: tuple[ClaimView, ...]

    def owned(self, member: str) -> tuple[int, ...]:
        """Return the shards that a member owns."""
        return self._owned.get(member, ())

    @functools.cached_property
    def _owned(self) -> Mapping[str, tuple[int, ...]]:
        owned: dict[str, tuple[int, ...]] = {}
        for claim in self.claims:
            if (owner := claim.owner) is not None:
                owned[owner] = (*owned.get(owner, ()), claim.shard)
        return owned
