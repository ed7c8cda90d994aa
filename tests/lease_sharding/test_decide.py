"""What a member does, given what it sees: tables, and properties over whole groups."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.assign import ranking, shares
from lease_sharding.decide import Standpoint, decide, overdue
from lease_sharding.leases import ClaimRecord, Lease, SessionRecord
from lease_sharding.observe import ClaimState, ClaimView, SessionState, SessionView, Situation

NOW, GRACE, PATIENCE = 1000.0, 2.0, 10.0


def session(member, state=SessionState.LIVE, *, seen=NOW - 1, expires=NOW + 9):
    id_ = None if state is SessionState.ENDED else f"{member}-1"
    record = SessionRecord(member, id_, (), state is SessionState.DRAINING, 10, Lease(name=f"demo-member-{member}"))
    return SessionView(record, seen, state, expires)


def claim(shard, holder=None, state=None, *, claimable=None, since=NOW - 1):
    state = state or (ClaimState.FREE if holder is None else ClaimState.HELD)
    if claimable is None and state in (ClaimState.FREE, ClaimState.DEAD):
        claimable = since
    record = ClaimRecord(shard, holder, None, 1, True, "8", Lease(name=f"demo-shard-{shard}"))
    return ClaimView(shard, record, state, since, claimable, 1)


def group(sessions, claims):
    return Situation(NOW, {view.record.member: view for view in sessions}, tuple(claims))


def decision(situation, member, **options):
    return decide(situation, Standpoint(member, **options), grace=GRACE, patience=PATIENCE)


def owners_after(situation, members, **options):
    """Return who would own each shard if everybody did what it decides, once."""
    taken = {member: decision(situation, member, **options).take for member in members}
    return {shard: [member for member in members if shard in taken[member]] for shard in range(len(situation.claims))}


MEMBERS = st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=7)


@given(members=MEMBERS, shards=st.integers(1, 24))
def test_free_shards_are_each_taken_by_one_and_everybody_gets_the_share(members, shards):
    situation = group(map(session, members), map(claim, range(shards)))
    owners = owners_after(situation, sorted(members))
    assert all(len(takers) == 1 for takers in owners.values())
    counts = {member: sum(takers == [member] for takers in owners.values()) for member in members}
    assert counts == shares(members, shards)


@given(members=MEMBERS, owners=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=24), data=st.data())
def test_what_is_released_and_taken_leads_to_fair_shares_with_the_least_moves(members, owners, data):
    """Round by round, everybody releases and takes what it decides; nothing is released that need not move."""
    shards = len(owners)
    owned = {shard: owner if owner in members else None for shard, owner in enumerate(owners)}
    wanted = shares(members, shards)
    counts = {member: sum(owner == member for owner in owned.values()) for member in members}
    needed = sum(max(counts[member] - wanted[member], 0) for member in members)
    released = 0
    for _ in range(shards + 2):
        situation = group(map(session, members), (claim(shard, owner) for shard, owner in owned.items()))
        decided = {member: decision(situation, member) for member in members}
        for member, its in decided.items():
            for shard in its.take:
                assert owned[shard] is None
                owned[shard] = member
            for shard in its.release:
                assert owned[shard] == member
                owned[shard] = None
                released += 1
    assert {member: sum(owner == member for owner in owned.values()) for member in members} == wanted
    assert released == needed


def test_after_the_grace_others_take_what_the_one_it_is_meant_for_leaves():
    early = group([session("a"), session("b")], [claim(0), *(claim(n, "ab"[n % 2]) for n in range(1, 5))])
    meant = next(iter(decision(early, "a").take.values()), "b")
    other = "ab".replace(meant, "")
    assert decision(early, other).take == {}
    assert decision(early, other).again <= NOW - 1 + 2 * GRACE
    late = dataclasses.replace(early, claims=(claim(0, since=NOW - 2 * GRACE), *early.claims[1:]))
    assert decision(late, other).take == {0: meant}


def test_who_is_unwilling_counts_for_nothing():
    situation = group([session("a"), session("b")], [claim(n) for n in range(4)])
    assert set(decision(situation, "a", unwilling=frozenset({"b"})).take) == {0, 1, 2, 3}


UNTAKEN = {
    "while it leaves": ("a", {"draining": True}),
    "while it is under way": ("a", {"busy": frozenset({0, 1})}),
    "while it has no session": ("c", {}),
}


@pytest.mark.parametrize(("member", "options"), UNTAKEN.values(), ids=UNTAKEN)
def test_a_member_takes_nothing(member, options):
    assert decision(group([session("a")], [claim(0), claim(1)]), member, **options).take == {}


def test_what_is_uncertain_is_taken_when_it_was_waited_out():
    situation = group([session("a")], [claim(0, "x", ClaimState.UNCERTAIN, claimable=NOW + 3)])
    assert (decision(situation, "a").take, decision(situation, "a").again) == ({}, NOW + 3)
    assert decision(dataclasses.replace(situation, now=NOW + 3), "a").take == {0: "a"}


def test_what_others_believe_it_holds_only_it_can_take_and_it_does():
    situation = group([session("a"), session("b")], [claim(0, "a", ClaimState.UNCERTAIN, claimable=NOW)])
    assert decision(situation, "a").take == {0: "a"}


def test_a_member_that_leaves_releases_everything_that_is_not_under_way():
    situation = group([session("a", SessionState.DRAINING)], [claim(n, "a") for n in range(3)])
    assert decision(situation, "a", draining=True, busy=frozenset({1})).release == (0, 2)


def test_no_more_is_released_than_the_others_can_take_beside_what_is_free():
    members = [session("a"), session("b")]
    assert len(decision(group(members, [claim(n, "a") for n in range(8)]), "a").release) == 4
    half = [claim(n, "a") for n in range(6)] + [claim(6), claim(7)]
    assert len(decision(group(members, half), "a").release) == 2


def test_what_is_draining_already_counts_as_released():
    situation = group([session("a"), session("b")], [claim(n, "a") for n in range(8)])
    first = decision(situation, "a").release
    assert decision(situation, "a", busy=frozenset(first)).release == ()


def test_one_of_the_living_takes_a_lapsed_session_at_once_and_the_others_after_the_grace():
    dead = session("dead", SessionState.LAPSED, expires=NOW)
    situation = group([session("a"), session("b"), dead], [claim(0, "dead", ClaimState.LAPSED)])
    ends = {member: decision(situation, member).end for member in "ab"}
    assert sorted(ends.values()) == [(), ("dead",)]
    late = dataclasses.replace(situation, now=NOW + GRACE)
    assert {decision(late, member).end for member in "ab"} == {("dead",)}


def test_a_living_session_is_never_taken_and_looked_at_when_it_may_lapse():
    situation = group([session("a"), session("b", expires=NOW + 4)], [claim(0, "b")])
    assert (decision(situation, "a").end, decision(situation, "a").again) == ((), NOW + 4)


def test_ones_own_session_is_never_taken():
    assert decision(group([session("a", SessionState.LAPSED, expires=NOW - 5)], []), "a").end == ()


def test_an_ended_session_is_forgotten_only_when_no_claim_names_it():
    gone = session("gone", SessionState.ENDED, seen=NOW - PATIENCE)
    assert decision(group([session("a"), gone], [claim(0, "a")]), "a").forget == ("gone",)
    assert decision(group([session("a"), gone], [claim(0, "gone", ClaimState.DEAD)]), "a").forget == ()
    recent = session("gone", SessionState.ENDED, seen=NOW - 1)
    assert decision(group([session("a"), recent], [claim(0, "a")]), "a").forget == ()


def test_a_missing_claim_is_made_by_one_after_the_other():
    missing = ClaimView(0, None, ClaimState.UNCERTAIN, NOW, None)
    situation = group([session("a"), session("b")], [missing])
    first, second = ranking(["a", "b"], 0)
    assert (decision(situation, first).restore, decision(situation, second).restore) == ((0,), ())
    assert decision(dataclasses.replace(situation, now=NOW + GRACE), second).restore == (0,)


@pytest.mark.parametrize(
    ("view", "verdict"),
    [
        (claim(0, "a"), False),
        (claim(0, since=NOW - 2 * GRACE), False),
        (claim(0, since=NOW - 2 * GRACE - 0.1), True),
        (claim(0, "x", ClaimState.UNCERTAIN, claimable=NOW + 1), False),
        (claim(0, "x", ClaimState.LAPSED), False),
    ],
)
def test_a_shard_is_overdue_when_whoever_it_is_meant_for_had_time(view, verdict):
    assert overdue(view, group([], [view]), grace=GRACE) is verdict
