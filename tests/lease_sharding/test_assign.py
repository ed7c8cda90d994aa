"""Shards, shares and who claims what: the same for every member, and stable across versions."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.assign import assignment, ranking, shard_of, share, shares

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
MEMBERS = st.sets(NAMES, min_size=1, max_size=9)
SHARDS = st.integers(1, 64)

PAGE = (Path(__file__).parents[2] / "docs" / "sharding.md").read_text()
VECTORS = [
    (key, int(shards), int(shard))
    for key, *numbers in re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    for shards, shard in zip((32, 100, 4096), numbers, strict=True)
]


def test_the_page_has_vectors():
    assert len(VECTORS) >= 3 * 6


@pytest.mark.parametrize(("key", "shards", "shard"), VECTORS)
def test_a_key_is_in_the_shard_that_the_page_says(key, shards, shard):
    """Never to be changed: replicas of two versions work side by side during a rollout."""
    assert shard_of(key, shards) == shard


@given(members=MEMBERS, shards=SHARDS)
def test_shares_differ_by_one_at_most_and_sum_up_to_all(members, shards):
    given = shares(members, shards)
    assert sum(given.values()) == shards
    assert max(given.values()) - min(given.values()) <= 1
    assert given == {
        name: share(rank, members=len(members), shards=shards) for rank, name in enumerate(sorted(members))
    }


@given(members=MEMBERS, shards=SHARDS)
def test_from_nothing_everybody_gets_the_share(members, shards):
    wanted = shares(members, shards)
    given = assignment(range(shards), wanted)
    assert {name: list(given.values()).count(name) for name in members} == wanted


@given(members=MEMBERS, shards=SHARDS, gone=st.data())
def test_a_member_that_leaves_moves_no_more_than_it_owned(members, shards, gone):
    owned = assignment(range(shards), shares(members, shards))
    lost = gone.draw(st.sampled_from(sorted(members)))
    rest = members - {lost}
    kept = {shard: owner for shard, owner in owned.items() if owner != lost}
    room = (
        {name: count - list(kept.values()).count(name) for name, count in shares(rest, shards).items()} if rest else {}
    )
    moved = assignment(sorted(set(range(shards)) - set(kept)), room)
    # Shares shrink nowhere when a member leaves, so nobody gives anything up, and all that was lost finds an owner.
    assert all(lacking >= 0 for lacking in room.values())
    assert len(moved) == (shards - len(kept) if rest else 0)


@given(members=MEMBERS, shards=SHARDS, newcomer=NAMES)
def test_a_member_that_joins_is_given_no_more_than_the_fair_share(members, shards, newcomer):
    before = shares(members, shards)
    after = shares(members | {newcomer}, shards)
    given_up = sum(max(count - after[name], 0) for name, count in before.items())
    grown = sum(max(after[name] - before.get(name, 0), 0) for name in after)
    assert given_up == grown
    if newcomer not in members:
        # The newcomer sorts anywhere, so the odd shards may go to others by their new ranks: at most one each.
        assert given_up <= -(-shards // (len(members) + 1)) + len(members)


@given(shards=st.sets(st.integers(0, 63)), room=st.dictionaries(NAMES, st.integers(-3, 5), max_size=6))
def test_nobody_is_given_more_than_there_is_room_for(shards, room):
    given = assignment(shards, room)
    total = sum(max(lacking, 0) for lacking in room.values())
    assert len(given) == min(len(shards), total)
    assert set(given) <= shards
    for name in room:
        assert list(given.values()).count(name) <= max(room[name], 0)


@given(members=MEMBERS, shard=st.integers(0, 63), newcomer=NAMES)
def test_a_newcomer_does_not_change_the_order_of_the_others(members, shard, newcomer):
    ranked = ranking(members | {newcomer}, shard)
    assert [name for name in ranked if name != newcomer] == ranking(members - {newcomer}, shard)


def test_short_names_spread_evenly():
    """What FNV-1a's high bits don't do: 500 namespaces of one pattern over 32 shards."""
    counts = [0] * 32
    for number in range(500):
        counts[shard_of(f"tenant-{number}", 32)] += 1
    assert min(counts) >= 5
    assert max(counts) <= 30
