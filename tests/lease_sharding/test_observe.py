"""What a Lease means to its observer, as tables; time is an argument."""

import dataclasses
from datetime import UTC, datetime

import pytest

from lease_sharding.leases import (
    Lease,
    Names,
    claim_record,
    claimed,
    ended,
    opened,
    placeholder,
    released,
    renewed,
    session_record,
)
from lease_sharding.observe import (
    HIGHEST_EPOCH,
    ClaimState,
    ClaimView,
    Myself,
    SessionState,
    Situation,
    claim_state,
    observe,
    view_session,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = Names("demo", 8)
OBSERVER = Myself("me", "mine", {})


def session_lease(member="a", session="s1", duration=10, ended=()):
    lease = Lease(name=NAMES.session(member))
    return opened(lease, group="demo", member=member, session=session, ended=ended, duration=duration, now=NOW)


def claim_lease(member="a", session="s1", epoch=1):
    empty = placeholder(NAMES, 3, epoch=0)
    return claimed(empty, names=NAMES, shard=3, member=member, session=session, epoch=epoch, duration=10, now=NOW)


def seen(lease, *, at=100.0, now=100.0, member="a", duration=10):
    return view_session(session_record(member, lease), at, now=now, duration=duration)


DRAINING = renewed(session_lease(), group="demo", duration=10, draining=True, now=NOW)
SESSIONS = {
    "just renewed": (session_lease(), 100, SessionState.LIVE),
    "almost too late": (session_lease(), 109.9, SessionState.LIVE),
    "too late": (session_lease(), 110, SessionState.LAPSED),
    "about to leave": (DRAINING, 105, SessionState.DRAINING),
    "left without an end": (DRAINING, 110, SessionState.LAPSED),
    "ended": (ended(session_lease()), 100, SessionState.ENDED),
    "ended long ago": (ended(session_lease()), 999, SessionState.ENDED),
    "with a longer session than ours": (session_lease(duration=30), 129, SessionState.LIVE),
    "with a shorter session than ours": (session_lease(duration=1), 109, SessionState.LIVE),
    "shortened by hand": (dataclasses.replace(session_lease(), duration=1), 109, SessionState.LIVE),
    "lengthened by hand": (dataclasses.replace(session_lease(), duration=3600), 110, SessionState.LAPSED),
    "given away by hand": (dataclasses.replace(session_lease(), holder="b"), 100, SessionState.ENDED),
}


@pytest.mark.parametrize(("lease", "now", "state"), SESSIONS.values(), ids=SESSIONS)
def test_a_session_that_was_seen_first_at_100(lease, now, state):
    assert seen(lease, now=now).state is state


def test_time_counts_from_the_first_sight_of_a_version():
    first = dataclasses.replace(session_lease(), uid="u", resource_version="1")
    observation = observe(observe(None, first, 5.0), first, 8.0)
    assert observation.seen == 5.0
    assert observe(observation, dataclasses.replace(first, resource_version="2"), 9.0).seen == 9.0


ENDED_S1 = session_lease(session="s2", ended=("s1",))
CLAIMS = {
    "none": (None, session_lease(), ClaimState.UNCERTAIN),
    "of a living session": (claim_lease(), session_lease(), ClaimState.HELD),
    "of a draining one": (claim_lease(), DRAINING, ClaimState.HELD),
    "of one that has ended": (claim_lease(), ended(session_lease()), ClaimState.DEAD),
    "of one before the present one": (claim_lease(), ENDED_S1, ClaimState.DEAD),
    "of one that its member never had": (claim_lease(session="?"), session_lease(), ClaimState.UNCERTAIN),
    "of a member that is unknown": (claim_lease(), None, ClaimState.UNCERTAIN),
    "released": (released(claim_lease(), now=NOW), None, ClaimState.FREE),
    "made for a shard that had none": (placeholder(NAMES, 3, epoch=2), None, ClaimState.UNCERTAIN),
    "cleared by hand": (dataclasses.replace(claim_lease(), holder=None), None, ClaimState.UNCERTAIN),
    "given away by hand": (dataclasses.replace(claim_lease(), holder="b"), session_lease("b"), ClaimState.UNCERTAIN),
    "with another epoch by hand": (
        dataclasses.replace(claim_lease(), transitions=9),
        session_lease(),
        ClaimState.UNCERTAIN,
    ),
}


@pytest.mark.parametrize(("claim", "holder", "state"), CLAIMS.values(), ids=CLAIMS)
def test_a_claim(claim, holder, state):
    record = None if claim is None else claim_record(3, claim)
    assert claim_state(record, None if holder is None else seen(holder), OBSERVER) is state


def test_a_claim_of_a_lapsed_session_cannot_be_taken_before_the_session_is():
    holder = seen(session_lease(), now=110)
    assert claim_state(claim_record(3, claim_lease()), holder, OBSERVER) is ClaimState.LAPSED


@pytest.mark.parametrize(
    ("epochs", "state"), [({3: 1}, ClaimState.HELD), ({3: 2}, ClaimState.UNCERTAIN), ({}, ClaimState.UNCERTAIN)]
)
def test_a_claim_in_ones_own_name_counts_only_if_one_knows_of_it(epochs, state):
    holder = seen(session_lease("me", "mine"), member="me")
    record = claim_record(3, claim_lease("me", "mine"))
    assert claim_state(record, holder, Myself("me", "mine", epochs)) is state


def test_ones_own_claim_is_held_as_long_as_one_relies_on_it_oneself():
    """Whether the own session lasts is the session's to say, not its Lease's."""
    holder = seen(session_lease("me", "mine"), member="me", now=999)
    record = claim_record(3, claim_lease("me", "mine"))
    assert claim_state(record, holder, Myself("me", "mine", {3: 1})) is ClaimState.HELD


def test_a_claim_that_went_back_to_an_earlier_epoch_is_waited_out():
    record = claim_record(3, released(claim_lease(), now=NOW))
    assert claim_state(record, None, OBSERVER, restored=True) is ClaimState.UNCERTAIN


@pytest.mark.parametrize(
    ("written", "known", "following"), [(1, 1, 2), (1, 7, 8), (7, 0, 8), (HIGHEST_EPOCH, 3, 4), (2**31 - 1, 0, 1)]
)
def test_the_next_epoch_is_higher_than_all_before_whatever_a_hand_wrote(written, known, following):
    view = ClaimView(3, claim_record(3, claim_lease(epoch=written)), ClaimState.FREE, 0.0, 0.0, known)
    assert view.next_epoch == following


def test_only_what_is_held_has_an_owner():
    record = claim_record(3, claim_lease())
    views = tuple(ClaimView(3, record, state, 0.0, None) for state in ClaimState)
    assert [view.owner for view in views] == ["a" if view.state is ClaimState.HELD else None for view in views]
    assert Situation(0.0, {}, views).owned("a") == (3,)
