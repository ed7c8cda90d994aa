"""A forecast of another number of replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.assign import shard_of
from secret_manager_controller.cli.forecast import forecast

OBJECTS = {f"team-{number}": number for number in range(40)}


def balanced(members, shards):
    return {shard: members[shard % len(members)] for shard in range(shards)}


def test_one_more_replica_takes_its_share_and_nothing_else_moves():
    told = forecast(balanced(["a", "b"], 32), ["a", "b"], replicas=3, shards=32, objects=OBJECTS)
    assert [(row.name, row.shards) for row in told.members] == [("a", 11), ("b", 11), ("new-1", 10)]
    assert told.moved_shards == 10
    assert (told.moved_namespaces, told.moved_objects) == (told.members[2].namespaces, told.members[2].objects)


def test_one_less_moves_what_it_had():
    owners = balanced(["a", "b", "c"], 32)
    told = forecast(owners, ["c", "a", "b"], replicas=2, shards=32, objects=OBJECTS)
    assert [(row.name, row.shards) for row in told.members] == [("a", 16), ("b", 16)]
    lost = {shard for shard, owner in owners.items() if owner == "c"}
    assert told.moved_shards == len(lost)
    assert told.moved_namespaces == sum(shard_of(namespace, 32) in lost for namespace in OBJECTS)


def test_the_same_number_moves_nothing():
    told = forecast(balanced(["a", "b"], 4), ["a", "b"], replicas=2, shards=4, objects=OBJECTS)
    assert (told.moved_shards, told.moved_objects) == (0, 0)


@pytest.mark.parametrize("replicas", [1, 40])
def test_there_may_be_more_replicas_than_shards(replicas):
    told = forecast({}, [], replicas=replicas, shards=8, objects=OBJECTS)
    assert sum(row.shards for row in told.members) == 8
    assert sum(row.objects for row in told.members) == sum(OBJECTS.values())


@given(before=st.integers(0, 9), after=st.integers(1, 9), shards=st.integers(1, 40), seed=st.integers(0, 1000))
def test_shares_differ_by_one_at_most_and_no_more_moves_than_they_ask_for(before, after, shards, seed):
    living = [f"smc-{seed}-{number}" for number in range(before)]
    owners = balanced(living, shards) if living else {}
    told = forecast(owners, living, replicas=after, shards=shards, objects={})
    counts = [row.shards for row in told.members]
    assert max(counts) - min(counts) <= 1
    kept = sum(min(row.shards, sum(owner == row.name for owner in owners.values())) for row in told.members)
    assert told.moved_shards == len(owners) - kept
