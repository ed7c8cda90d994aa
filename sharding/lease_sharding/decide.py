"""What one member should do next, given what it sees. Pure: the effects are `claims.py`'s and `session.py`'s.

Every member decides for itself. As long as they see the same, their decisions fit together; where they do not,
compare-and-swap lets one of them win, and the loser looks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lease_sharding.assign import assignment, ranking, shares, weight
from lease_sharding.observe import LIVING, ClaimState, ClaimView, SessionState, Situation


@dataclass(frozen=True, slots=True)
class Standpoint:
    """From where a member decides.

    Attributes:
        member: its name.
        draining: it is about to leave: it takes nothing and gives everything away.
        busy: the shards that it is taking, draining or releasing already.
        held: the other shards that it holds.
        unwilling: members that live but do not claim what is meant for them; they count for nothing.
    """

    member: str
    draining: bool = False
    busy: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    unwilling: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and when to look again.

    Attributes:
        end: members whose lapsed sessions to take, so that their claims are dead.
        restore: shards to make a claim for, since they have none.
        take: shards to claim; the value is who they are meant for.
        release: shards to drain and release.
        forget: members whose ended session Leases to delete.
        again: when time alone will change the decision, in the observer's time; None if it will not.
    """

    end: tuple[str, ...] = ()
    restore: tuple[int, ...] = ()
    take: Mapping[int, str] = field(default_factory=dict)
    release: tuple[int, ...] = ()
    forget: tuple[str, ...] = ()
    again: float | None = None


def active(situation: Situation, standpoint: Standpoint) -> list[str]:
    """Return the members that share the shards now: those that live, stay, and claim what is meant for them."""
    return sorted(
        member
        for member, session in situation.sessions.items()
        if session.state is SessionState.LIVE and member not in standpoint.unwilling
    )


def decide(situation: Situation, standpoint: Standpoint, *, grace: float, patience: float) -> Decision:
    """Return what a member should do.

    Args:
        situation: the group as the member sees it.
        standpoint: the member itself.
        grace: seconds that the member that a shard is meant for may take to claim it.
        patience: seconds after which an ended session Lease that nothing refers to is deleted.
    """
    end, end_again = sessions_to_end(situation, standpoint, grace=grace)
    restore, restore_again = claims_to_restore(situation, standpoint, grace=grace)
    forget, forget_again = sessions_to_forget(situation, standpoint, patience=patience)
    take, take_again = claims_to_take(situation, standpoint, grace=grace)
    times = [time for time in (end_again, restore_again, forget_again, take_again) if time is not None]
    return Decision(
        end=end,
        restore=restore,
        take=take,
        release=claims_to_release(situation, standpoint),
        forget=forget,
        again=min(times, default=None),
    )


def claims_to_take(
    situation: Situation, standpoint: Standpoint, *, grace: float
) -> tuple[dict[int, str], float | None]:
    """Return the shards to claim now, with the member that each is meant for, and when there may be more.

    A shard that may be claimed is meant for the member that ranks highest for it among those below their share. After
    the grace anyone claims it, one after the other: no shard stays unowned because one member disagrees.
    """
    members = active(situation, standpoint)
    if standpoint.draining or standpoint.member not in members:
        return {}, None
    now = situation.now
    open_claims = {claim.shard: claim.claimable for claim in situation.claims if claim.claimable is not None}
    ready = [shard for shard, claimable in open_claims.items() if claimable <= now]
    # What stands in its own name by another's hand is held in everybody else's eyes: nobody else will claim it.
    own = {c.shard for c in situation.claims if c.record is not None and c.record.holder == standpoint.member}
    meant = assignment((shard for shard in ready if shard not in own), _room(situation, members))
    take: dict[int, str] = {}
    later: list[float] = [claimable for claimable in open_claims.values() if claimable > now]
    for shard in ready:
        ranked = ranking(members, shard)
        first = standpoint.member if shard in own else meant.get(shard, ranked[0])
        turn = ranked.index(standpoint.member) / len(ranked)
        due = open_claims[shard] + (0.0 if first == standpoint.member else grace * (1 + turn))
        if due > now:
            later.append(due)
        elif shard not in standpoint.busy | standpoint.held:
            take[shard] = first
    return take, min(later, default=None)


def claims_to_restore(
    situation: Situation, standpoint: Standpoint, *, grace: float
) -> tuple[tuple[int, ...], float | None]:
    """Return the shards to make a claim for now, and when there may be more: at first, or after an edit by hand."""
    members = active(situation, standpoint)
    if standpoint.member not in members:
        return (), None
    restore, later = [], []
    for claim in situation.claims:
        if claim.record is None:
            turn = ranking(members, claim.shard).index(standpoint.member) / len(members)
            due = claim.since + grace * turn
            if due <= situation.now:
                restore.append(claim.shard)
            else:
                later.append(due)
    return tuple(restore), min(later, default=None)


def claims_to_release(situation: Situation, standpoint: Standpoint) -> tuple[int, ...]:
    """Return the shards to drain: all for a member that leaves, else those above its share, the weakest ties first.

    No more are given up than the members below their share can take beside what is unowned already. If that is too
    little for all, the member that is nearest to its share goes first.
    """
    mine = situation.owned(standpoint.member)
    if standpoint.draining:
        return tuple(shard for shard in mine if shard not in standpoint.busy)
    members = active(situation, standpoint)
    if standpoint.member not in members:
        return ()
    room = _room(situation, members)
    unowned = sum(claim.owner is None for claim in situation.claims)
    budget = sum(lacking for lacking in room.values() if lacking > 0) - unowned
    allowed = 0
    for excess, member in sorted((-lacking, member) for member, lacking in room.items() if lacking < 0):
        allowed = min(excess, max(budget, 0))
        budget -= allowed
        if member == standpoint.member:
            break
    else:
        return ()
    leaving = sum(shard in standpoint.busy for shard in mine)
    weakest = sorted(mine, key=lambda shard: weight(standpoint.member, shard))
    return tuple([shard for shard in weakest if shard not in standpoint.busy][: max(allowed - leaving, 0)])


def sessions_to_end(
    situation: Situation, standpoint: Standpoint, *, grace: float
) -> tuple[tuple[str, ...], float | None]:
    """Return the members whose lapsed sessions to take now, and when the next one may lapse.

    One of the living does it at once, by its rank for the dead member's name; the others after the grace.
    """
    living = [member for member, session in situation.sessions.items() if session.state in LIVING]
    end, later = [], []
    for member, session in situation.sessions.items():
        if member == standpoint.member or session.state is SessionState.ENDED:
            continue
        first = ranking(living, _shard_for(member))[:1] == [standpoint.member]
        due = session.expires + (0.0 if first else grace)
        if session.state is SessionState.LAPSED and due <= situation.now:
            end.append(member)
        else:
            later.append(max(due, session.expires) if session.state is SessionState.LAPSED else session.expires)
    return tuple(end), min(later, default=None)


def sessions_to_forget(
    situation: Situation, standpoint: Standpoint, *, patience: float
) -> tuple[tuple[str, ...], float | None]:
    """Return the members whose ended session Leases to delete now, and when there may be more.

    Pods have new names after every rollout; their Leases must not pile up. A claim that still names the member needs
    the Lease: that its session has ended is written there.
    """
    living = [member for member, session in situation.sessions.items() if session.state in LIVING]
    needed = {claim.record.holder for claim in situation.claims if claim.record is not None}
    forget, later = [], []
    for member, session in situation.sessions.items():
        if session.state is not SessionState.ENDED or member in needed or member == standpoint.member:
            continue
        if ranking(living, _shard_for(member))[:1] != [standpoint.member]:
            continue
        due = session.seen + patience
        if due <= situation.now:
            forget.append(member)
        else:
            later.append(due)
    return tuple(forget), min(later, default=None)


def overdue(claim: ClaimView, situation: Situation, *, grace: float) -> bool:
    """Tell whether a shard is unowned although whoever it is meant for had time to claim it."""
    if claim.state is ClaimState.HELD:
        return False
    return claim.claimable is not None and situation.now > claim.claimable + 2 * grace


def _room(situation: Situation, members: list[str]) -> dict[str, int]:
    """Return how many shards each member lacks; below 0, how many it has too many."""
    return {
        member: count - len(situation.owned(member)) for member, count in shares(members, len(situation.claims)).items()
    }


def _shard_for(member: str) -> int:
    """Return a number that spreads the care for dead members over the living."""
    return sum(member.encode())
