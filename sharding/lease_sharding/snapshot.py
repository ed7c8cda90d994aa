"""The group as a value, for command lines and metrics: members with their sessions, shards with their owners. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lease_sharding.assign import shares
from lease_sharding.leases import SHARD_COUNT, Lease, Names
from lease_sharding.observe import LIVING, ClaimState, ClaimView, Myself, SessionState, SessionView, Situation
from lease_sharding.view import View


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member.

    Attributes:
        session: the id of its session, None if it has ended.
        since: when the session was opened.
        renewed_ago: seconds since the last renewal that was seen.
        share: how many shards it should own; 0 while it drains or is dead.
        owned: how many it owns.
    """

    name: str
    state: SessionState
    session: str | None
    since: datetime | None
    renewed_ago: float
    share: int
    owned: int


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard.

    Attributes:
        owner: the member that owns it, None if nobody does.
        holder: whom its claim names, dead or alive.
        since: when the claim was last written: gained or released.
        epoch: how many times it has changed hands.
        unowned_for: seconds for which nobody has owned it, as far as the observer knows; None if it is owned.
    """

    shard: int
    state: ClaimState
    owner: str | None
    holder: str | None
    since: datetime | None
    epoch: int
    unowned_for: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole group at one moment."""

    group: str
    shards: tuple[ShardRow, ...]
    members: tuple[MemberRow, ...]

    @property
    def unowned(self) -> tuple[ShardRow, ...]:
        """The shards that nobody owns."""
        return tuple(row for row in self.shards if row.owner is None)


def snapshot_of(situation: Situation, *, group: str) -> Snapshot:
    """Return what a member knows of its group."""
    staying = [name for name, session in situation.sessions.items() if session.state is SessionState.LIVE]
    share = shares(staying, len(situation.claims))
    members = [
        _member_row(name, session, situation, share.get(name, 0))
        for name, session in sorted(situation.sessions.items())
    ]
    return Snapshot(group, tuple(_shard_row(claim, situation) for claim in situation.claims), tuple(members))


def snapshot_of_leases(leases: Iterable[Lease], *, group: str, now: datetime, duration: float) -> Snapshot | None:
    """Return what one listing tells to somebody who has not watched: ages are told by the time of day.

    Args:
        leases: the group's, as listed.
        group: its name.
        now: the time of day; it should be about right.
        duration: seconds after which an unrenewed session counts as lapsed where its Lease does not say.

    Returns:
        None if there is no such group.
    """
    found = {lease.name: lease for lease in leases}
    config = found.get(Names(group, 1).config)
    count = config.annotations.get(SHARD_COUNT, "") if config is not None else ""
    if not count.isdigit() or not int(count):
        return None
    names = Names(group, int(count))
    view = View(names, duration=duration)
    for lease in found.values():
        # Every Lease is put at the time at which it says that it was written.
        age = (now - lease.renewed).total_seconds() if lease.renewed is not None else 0.0
        view.found(lease, -max(age, 0.0))
    return snapshot_of(view.look(0.0, OUTSIDER), group=group)


OUTSIDER = Myself(member="", session=None, epochs={})
"""Who looks at a group without being a member of it."""


def _member_row(name: str, session: SessionView, situation: Situation, share: int) -> MemberRow:
    return MemberRow(
        name=name,
        state=session.state,
        session=session.id,
        since=session.record.lease.acquired,
        renewed_ago=max(situation.now - session.seen, 0.0),
        share=share,
        owned=len(situation.owned(name)) if session.state in LIVING else 0,
    )


def _shard_row(claim: ClaimView, situation: Situation) -> ShardRow:
    record = claim.record
    return ShardRow(
        shard=claim.shard,
        state=claim.state,
        owner=claim.owner,
        holder=record.holder if record is not None else None,
        since=record.lease.renewed if record is not None else None,
        epoch=claim.epoch,
        unowned_for=None if claim.state is ClaimState.HELD else situation.now - _unowned_since(claim, situation),
    )


def _unowned_since(claim: ClaimView, situation: Situation) -> float:
    """Return since when nobody owns a shard: since its holder's session lapsed, or it was released or so seen."""
    record = claim.record
    holder = situation.sessions.get(record.holder) if record is not None and record.holder is not None else None
    if claim.state is ClaimState.LAPSED and holder is not None:
        return min(holder.expires, situation.now)
    return min(claim.since, situation.now)
