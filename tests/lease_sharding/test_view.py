"""What an observer remembers of Leases that reach it by listings, a watch and answers, in any order."""

import dataclasses
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.leases import Lease, Names, claimed, ended, opened, placeholder, released
from lease_sharding.observe import ClaimState, Myself, SessionState
from lease_sharding.view import View

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = Names("demo", 2)
ME = Myself("me", None, {})


def at(lease, version, uid="u"):
    return dataclasses.replace(lease, uid=uid, resource_version=str(version))


def session(member="a", session="s1", duration=10):
    lease = Lease(name=NAMES.session(member))
    return opened(lease, group="demo", member=member, session=session, ended=(), duration=duration, now=NOW)


def claim(shard=0, member="a", session="s1", epoch=1):
    empty = placeholder(NAMES, shard, epoch=0)
    return claimed(empty, names=NAMES, shard=shard, member=member, session=session, epoch=epoch, duration=10, now=NOW)


def a_view():
    return View(NAMES, duration=10)


def test_a_listing_removes_what_it_does_not_show():
    view = a_view()
    view.replace([at(session(), 5)], "5", 0.0)
    view.replace([], "6", 1.0)
    assert view.get(session().name) is None


def test_a_late_listing_neither_removes_nor_replaces_what_is_newer():
    view = a_view()
    view.replace([], "5", 0.0)
    view.put(at(session(), 8), 1.0)
    view.replace([], "7", 2.0)
    view.replace([at(session(), 6)], "7", 2.0)
    assert view.get(session().name) == at(session(), 8)


def test_what_was_deleted_does_not_come_back_with_a_late_event():
    view = a_view()
    view.replace([at(session(), 5)], "5", 0.0)
    view.remove(session().name, "9")
    view.put(at(session(), 8), 1.0)
    assert view.get(session().name) is None
    view.put(at(session(), 10, uid="v"), 2.0)
    assert view.get(session().name) == at(session(), 10, uid="v")


def test_what_a_listing_did_not_show_does_not_come_back_with_a_late_event():
    view = a_view()
    view.replace([], "9", 0.0)
    view.put(at(session(), 8), 1.0)
    assert view.get(session().name) is None


def test_a_late_deletion_does_not_remove_what_was_made_since():
    view = a_view()
    view.replace([at(session(), 9)], "9", 0.0)
    view.remove(session().name, "7")
    assert view.get(session().name) == at(session(), 9)


def test_only_a_listing_with_news_tells_so():
    view = a_view()
    assert view.replace([at(session(), 5)], "5", 0.0) is True
    assert view.replace([at(session(), 5)], "6", 1.0) is False


@given(order=st.permutations(range(6)))
def test_in_any_order_the_newest_version_counts(order):
    view = a_view()
    for version in order:
        view.put(at(session(), 10 + version), 0.0)
    assert view.get(session().name) == at(session(), 15)


def test_time_counts_from_the_first_sight_even_if_each_listing_shows_it_again():
    view = a_view()
    for now in range(12):
        view.replace([at(session(), 5), at(claim(), 4)], str(5 + now), float(now))
    assert view.look(9.9, ME).sessions["a"].state is SessionState.LIVE
    situation = view.look(10.0, ME)
    assert situation.sessions["a"].state is SessionState.LAPSED
    assert situation.claims[0].state is ClaimState.LAPSED
    assert situation.claims[0].claimable is None


def test_a_dead_members_claims_can_be_taken_at_once_and_uncertain_ones_after_a_session():
    view = a_view()
    view.replace([at(ended(session()), 5), at(claim(), 4), at(claim(1, "nobody"), 4)], "5", 100.0)
    dead, uncertain = view.look(101.0, ME).claims
    assert (dead.state, dead.claimable) == (ClaimState.DEAD, 101.0)
    assert (uncertain.state, uncertain.claimable) == (ClaimState.UNCERTAIN, 111.0)


def test_what_is_uncertain_is_waited_out_for_the_longest_session_of_anybody():
    view = a_view()
    view.replace([at(session(duration=60), 5), at(claim(1, "nobody"), 4)], "5", 100.0)
    assert view.look(100.0, ME).claims[1].claimable == 160.0


def test_an_edit_does_not_shorten_a_session_that_was_longer_than_ours():
    view = a_view()
    view.put(at(session(duration=60), 5), 100.0)
    view.look(100.0, ME)
    view.put(at(dataclasses.replace(session(duration=60), duration=1), 6), 101.0)
    assert view.look(160.9, ME).sessions["a"].state is SessionState.LIVE
    assert view.look(161.0, ME).sessions["a"].state is SessionState.LAPSED


def test_a_claim_that_is_edited_again_is_waited_out_anew():
    view = a_view()
    for version, now in ((4, 100.0), (5, 107.0)):
        view.put(at(dataclasses.replace(claim(), holder=f"x{version}"), version), now)
        view.look(now, ME)
    assert view.look(111.0, ME).claims[0].claimable == 117.0


def test_a_claim_that_was_restored_from_an_earlier_epoch_is_waited_out():
    view = a_view()
    view.put(at(session(), 3), 100.0)
    view.put(at(claim(epoch=5), 4), 100.0)
    assert view.look(100.0, ME).claims[0].state is ClaimState.HELD
    view.put(at(released(claim(epoch=2), now=NOW), 6), 101.0)
    situation = view.look(101.0, ME)
    assert (situation.claims[0].state, situation.claims[0].epoch) == (ClaimState.UNCERTAIN, 5)
    assert situation.claims[0].next_epoch == 6
    assert view.look(111.0, ME).claims[0].state is ClaimState.FREE


def test_a_released_claim_was_free_since_it_was_seen_not_since_one_looked():
    view = a_view()
    view.put(at(released(claim(), now=NOW), 4), 100.0)
    assert view.look(105.0, ME).claims[0].claimable == 100.0


def test_a_lease_without_a_number_for_a_version_is_older_than_any():
    view = a_view()
    view.put(at(session(), 5), 0.0)
    view.put(dataclasses.replace(session(), uid="u", resource_version="newest"), 1.0)
    assert view.get(session().name) == at(session(), 5)
