"""The group for people and metrics, from a member's view and from one listing."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from lease_sharding.leases import (
    SHARD_COUNT,
    Lease,
    Names,
    claimed,
    config_lease,
    ended,
    opened,
    placeholder,
    released,
)
from lease_sharding.observe import ClaimState, SessionState
from lease_sharding.snapshot import snapshot_of_leases

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = Names("demo", 3)


def ago(seconds):
    return NOW - timedelta(seconds=seconds)


def session(member, renewed_ago):
    lease = Lease(name=NAMES.session(member), uid=member, resource_version="5")
    return opened(
        lease, group="demo", member=member, session=f"{member}-1", ended=(), duration=10, now=ago(renewed_ago)
    )


def claim(shard, member, *, since):
    empty = dataclasses.replace(placeholder(NAMES, shard, epoch=0), uid=str(shard), resource_version="6")
    return claimed(
        empty, names=NAMES, shard=shard, member=member, session=f"{member}-1", epoch=4, duration=10, now=ago(since)
    )


LEASES = [
    config_lease(NAMES),
    session("a", 1.5),
    session("dead", 60),
    ended(session("gone", 300)),
    claim(0, "a", since=3600),
    claim(1, "dead", since=3600),
    released(claim(2, "a", since=3600), now=ago(7)),
]


def test_one_listing_tells_who_owns_what_and_since_when():
    snapshot = snapshot_of_leases(LEASES, group="demo", now=NOW, duration=10)
    rows = [
        (row.shard, row.state, row.owner, row.holder, row.since, row.epoch, row.unowned_for) for row in snapshot.shards
    ]
    assert rows == [
        (0, ClaimState.HELD, "a", "a", ago(3600), 4, None),
        (1, ClaimState.LAPSED, None, "dead", ago(3600), 4, 50.0),
        (2, ClaimState.FREE, None, None, ago(7), 4, 7.0),
    ]
    assert [row.shard for row in snapshot.unowned] == [1, 2]
    members = [(row.name, row.state, row.renewed_ago, row.share, row.owned) for row in snapshot.members]
    assert members == [
        ("a", SessionState.LIVE, 1.5, 3, 1),
        ("dead", SessionState.LAPSED, 60.0, 0, 0),
        ("gone", SessionState.ENDED, 300.0, 0, 0),
    ]


@pytest.mark.parametrize("count", [None, "", "0", "many", "-3"])
def test_a_group_without_a_proper_config_is_none(count):
    config = dataclasses.replace(config_lease(NAMES), annotations={} if count is None else {SHARD_COUNT: count})
    assert snapshot_of_leases([config, *LEASES[1:]], group="demo", now=NOW, duration=10) is None
    assert snapshot_of_leases([], group="demo", now=NOW, duration=10) is None
