"""Leases as values: JSON and back, names, records, transitions, the seal."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from lease_sharding.leases import (
    DRAINING,
    ENDED,
    GROUP,
    REMEMBERED_SESSIONS,
    SESSION,
    SHARD,
    SHARD_COUNT,
    Lease,
    Names,
    claim_record,
    claimed,
    config_lease,
    ended,
    format_lease,
    is_sealed,
    opened,
    parse_lease,
    placeholder,
    released,
    renewed,
    session_record,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=2)
NAMES = Names("demo", 32)


def a_session(session="s1", before=None, **options):
    before = before or Lease(name=NAMES.session("a"))
    options = {"ended": (), "duration": 10, "now": NOW, **options}
    return opened(before, group="demo", member="a", session=session, **options)


def a_claim(before=None, *, member="a", session="s1", epoch=1):
    before = before or placeholder(NAMES, 3, epoch=0)
    return claimed(before, names=NAMES, shard=3, member=member, session=session, epoch=epoch, duration=10, now=NOW)


def test_json_and_back_give_the_same_lease():
    lease = dataclasses.replace(a_claim(), uid="u", resource_version="7")
    assert parse_lease(format_lease(lease, namespace="default")) == lease


def test_what_is_created_bears_no_version_and_what_is_replaced_bears_both():
    assert {"uid", "resourceVersion"}.isdisjoint(format_lease(a_claim(), namespace="x")["metadata"])
    read = dataclasses.replace(a_claim(), uid="u", resource_version="7")
    metadata = format_lease(read, namespace="x")["metadata"]
    assert (metadata["uid"], metadata["resourceVersion"]) == ("u", "7")


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": "", "renewTime": "yesterday", "leaseTransitions": None}])
def test_a_lease_that_says_nothing_or_nonsense_is_read_as_empty(spec):
    lease = parse_lease({"metadata": {"name": "x", "labels": None}, "spec": spec})
    assert lease == Lease(name="x")


def test_times_keep_their_microseconds_and_become_utc():
    body = {"metadata": {"name": "x"}, "spec": {"renewTime": "2026-01-02T04:04:05.678901+01:00"}}
    assert parse_lease(body).renewed == NOW
    assert format_lease(parse_lease(body), namespace="x")["spec"]["renewTime"] == "2026-01-02T03:04:05.678901Z"


@pytest.mark.parametrize(("shards", "name"), [(1, "demo-shard-00"), (100, "demo-shard-00"), (101, "demo-shard-000")])
def test_claims_names_sort_by_number(shards, name):
    names = Names("demo", shards)
    assert names.claim(0) == name
    assert sorted(map(names.claim, range(shards))) == [names.claim(shard) for shard in range(shards)]
    assert [names.shard_of(names.claim(shard)) for shard in range(shards)] == list(range(shards))


@pytest.mark.parametrize(
    "name", ["demo-shard-3", "demo-shard-032", "demo-shard-32", "demo-shard-", "x-shard-03", "demo-shard-٣"]
)
def test_what_is_no_claims_name(name):
    assert NAMES.shard_of(name) is None


def test_members_are_found_by_name():
    assert NAMES.member_of(NAMES.session("pod-member-1")) == "pod-member-1"
    assert [NAMES.member_of(name) for name in ("demo-member-", "demo-config", "other-member-a")] == [None] * 3


def test_a_session_from_beginning_to_end():
    begun = a_session(ended=("s0",))
    record = session_record("a", begun)
    assert (record.session, record.ended, record.draining, record.duration) == ("s1", ("s0",), False, 10)
    going = renewed(begun, group="demo", duration=10, draining=True, now=LATER)
    assert session_record("a", going).draining
    assert (going.renewed, going.acquired, going.transitions) == (LATER, NOW, begun.transitions)
    over = session_record("a", ended(going))
    assert (over.session, over.ended, over.draining) == (None, ("s1", "s0"), False)
    again = a_session("s2", before=ended(going))
    assert session_record("a", again).ended == ("s1", "s0")
    assert again.transitions > going.transitions


def test_a_renewal_differs_even_if_the_clock_was_set_back():
    begun = a_session()
    again = renewed(begun, group="demo", duration=10, draining=False, now=NOW - timedelta(hours=1))
    assert again.renewed > begun.renewed


def test_only_so_many_ended_sessions_are_remembered():
    lease = a_session(ended=tuple(f"old{number}" for number in range(20)))
    assert session_record("a", lease).ended == tuple(f"old{number}" for number in range(REMEMBERED_SESSIONS))


def test_a_claim_from_beginning_to_end():
    nobodys = placeholder(NAMES, 3, epoch=4)
    assert (claim_record(3, nobodys).holder, claim_record(3, nobodys).sealed) == (None, False)
    taken = claim_record(3, a_claim(nobodys, epoch=5))
    assert (taken.holder, taken.session, taken.epoch, taken.sealed, taken.count) == ("a", "s1", 5, True, "32")
    free = claim_record(3, released(taken.lease, now=LATER))
    assert (free.holder, free.session, free.epoch, free.sealed) == (None, None, 5, True)
    assert taken.lease.labels == {GROUP: "demo", SHARD: "03"}


HAND = {
    "holder": {"holder": "b"},
    "no holder": {"holder": None},
    "duration": {"duration": 3600},
    "epoch": {"transitions": 9},
    "another name": {"name": "demo-shard-04"},
    "session": {"annotations": {**a_claim().annotations, SESSION: "s2"}},
    "ended": {"annotations": {**a_claim().annotations, ENDED: "s1"}},
    "no annotations": {"annotations": {}},
}


@pytest.mark.parametrize("edit", HAND.values(), ids=HAND)
def test_an_edit_of_what_counts_breaks_the_seal(edit):
    assert is_sealed(a_claim())
    assert not is_sealed(dataclasses.replace(a_claim(), **edit))


@pytest.mark.parametrize(
    "edit", [{"labels": {"x": "y"}}, {"annotations": {**a_claim().annotations, "x": "y"}}, {"renewed": LATER}]
)
def test_an_edit_of_what_does_not_count_keeps_it(edit):
    assert is_sealed(dataclasses.replace(a_claim(), **edit))


def test_a_session_that_was_edited_tells_neither_its_duration_nor_what_ended():
    record = session_record("a", dataclasses.replace(a_session(ended=("s0",)), duration=1))
    assert (record.duration, record.ended) == (None, ())


def test_the_config_keeps_what_others_hung_on_it():
    lease = config_lease(NAMES, Lease(name="demo-config", labels={"x": "y"}, annotations={"a": "b"}))
    assert lease.labels == {"x": "y", GROUP: "demo"}
    assert lease.annotations == {"a": "b", SHARD_COUNT: "32"}
    assert DRAINING not in lease.annotations
