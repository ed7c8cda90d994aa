"""Each bad day, in virtual time, under the referee's eyes: what it costs, and that it ends."""

import dataclasses

import pytest

from lease_sharding.errors import ShardCountMismatch
from lease_sharding.leases import SESSION
from lease_sharding.settings import Settings
from lease_sharding.testing.referee import Violation
from lease_sharding.testing.simulation import CALL_TIMEOUT, SKEW, Simulation

SHARDS = 8
SETTINGS = Settings(group="demo", shards=SHARDS, drain_timeout=8)
HANDOVER = CALL_TIMEOUT + 1
"""Seconds: the last call of a drained shard ends, and within one more the next owner begins."""
TAKEOVER = SETTINGS.session_duration * (1 + SKEW) + SETTINGS.renew_interval + 1
"""Seconds: a session, counted from the last renewal, and some writes."""


def settled(simulation, *names):
    """Start members, and wait until they share the work."""
    for name in names:
        simulation.start(name)
    simulation.advance_until(simulation.is_balanced, within=simulation.bound, what="no balance")
    simulation.advance(5)
    simulation.referee.longest_unowned = 0.0
    return simulation


@pytest.fixture
def alone():
    with Simulation("alone", settings=SETTINGS) as simulation:
        yield settled(simulation, "a")


@pytest.fixture
def two():
    with Simulation("two", settings=SETTINGS) as simulation:
        yield settled(simulation, "a", "c")


@pytest.fixture
def three():
    with Simulation("three", settings=SETTINGS) as simulation:
        yield settled(simulation, "a", "b", "c")


def restore_backup(simulation):
    """Let shards go from their owners to another member and back, and restore one claim as it was before."""
    backup = dict(simulation.server.leases)
    simulation.start("b")
    simulation.advance_until(simulation.is_balanced, within=simulation.bound, what="no balance")
    simulation.leave("b")
    simulation.advance_until(simulation.is_balanced, within=simulation.bound, what="no balance")
    simulation.advance(5)
    names = map(simulation.names.claim, range(SHARDS))
    leases = [(backup[name], simulation.server.get(name)) for name in names]
    old, new = next(
        (old, new) for old, new in leases if (old.holder, old.transitions + 2) == (new.holder, new.transitions)
    )
    simulation.edit(new.name, lambda _: dataclasses.replace(old, uid=new.uid))
    return new.name


def all_owned(simulation):
    return lambda: not simulation.referee.unowned()


def test_a_killed_members_shards_are_taken_within_a_session(three):
    three.kill("b")
    three.advance_until(three.is_balanced, within=TAKEOVER, what="shards of the dead member are unowned")


def test_a_member_that_leaves_hands_over_as_soon_as_its_calls_have_ended(three):
    three.leave("b")
    three.advance_until(lambda: "b" not in three.processes, within=HANDOVER + 1, what="it has not left")
    three.advance_until(three.is_balanced, within=1, what="its shards are unowned")
    assert not [name for name in three.server.leases if name == three.names.session("b")]


def test_a_member_that_was_stopped_past_its_session_begins_anew_under_another(three):
    before = three.processes["b"].member.session_id
    three.pause("b")
    three.advance_until(
        all_owned(three), within=TAKEOVER, what="its shards are unowned"
    ) if three.referee.unowned() else None
    three.advance(3 * SETTINGS.session_duration)
    assert not three.referee.unowned()
    three.resume("b")
    three.advance_until(three.is_balanced, within=three.bound, what="no balance")
    assert three.processes["b"].member.session_id not in (before, None)
    assert three.processes["b"].member.counters.lapses == 1


def test_after_an_outage_of_the_api_server_everybody_is_back_without_waiting(three):
    three.server.down = True
    three.advance(60)
    assert len(three.referee.unowned()) == 2 * SHARDS  # Nobody may act when nobody can tell who is alive.
    three.server.down = False
    three.advance_until(all_owned(three), within=6, what="shards are unowned")
    three.advance_until(three.is_balanced, within=three.bound, what="no balance")


def test_a_short_outage_moves_nothing(three):
    moves = three.referee.moves
    three.server.down = True
    three.advance(4)
    three.server.down = False
    three.advance(30)
    assert three.referee.moves == moves


def test_a_member_whose_answers_take_half_a_minute_is_replaced(three):
    three.processes["b"].network.slow = 30.0
    three.advance_until(
        lambda: "b" not in {owner[0] for owner in three.referee.owners().values()}, within=20, what="b acts"
    )
    three.advance_until(all_owned(three), within=TAKEOVER, what="shards are unowned")
    three.processes["b"].network.heal()
    three.judge_rest()


def test_a_member_that_is_cut_off_stops_before_others_begin(three):
    three.processes["b"].network.cut = True
    three.advance(2 * SETTINGS.session_duration)
    assert {owner[0] for owner in three.referee.owners().values()} == {"a", "c"}
    assert not three.referee.unowned()
    three.processes["b"].network.heal()
    three.judge_rest()


HAND = {
    "edited": lambda s: s.edit(s.names.claim(0), lambda lease: dataclasses.replace(lease, holder=None)),
    "deleted": lambda s: s.remove(s.names.claim(0)),
    "stolen": lambda s: s.edit(
        s.names.claim(0),
        lambda lease: dataclasses.replace(
            lease, holder="c", annotations={**lease.annotations, SESSION: s.processes["c"].member.session_id}
        ),
    ),
}


@pytest.mark.parametrize("hand", HAND.values(), ids=HAND)
def test_a_claim_that_was_changed_by_hand_is_waited_out_and_taken_again(three, hand):
    moves = three.referee.moves
    hand(three)
    three.advance_until(lambda: three.referee.moves > moves, within=TAKEOVER, what="the shard is unowned")
    three.judge_rest()
    assert three.referee.moves == moves + 1


def test_a_claim_that_was_restored_from_a_backup_is_found_out_by_its_epoch(two):
    """It shows its owner in the session that lasts, some owners ago: the seal is whole, and only the epoch tells."""
    moves, name = two.referee.moves, restore_backup(two)
    two.advance_until(lambda: two.referee.moves > moves, within=TAKEOVER, what="nobody has taken it")
    two.judge_rest()
    assert two.server.get(name).transitions > 3


def test_the_time_of_day_does_not_matter(three):
    moves = three.referee.moves
    three.processes["a"].wall_jump = 3600.0
    three.processes["b"].wall_jump = -3600.0
    three.advance(60)
    assert three.referee.moves == moves


def test_a_member_with_another_shard_count_refuses_to_start(three):
    moves = three.referee.moves
    other = dataclasses.replace(SETTINGS, shards=16)
    three.start("d", settings=other)
    process = three.processes["d"]
    three.advance(30)
    assert isinstance(process.error, ShardCountMismatch)
    assert "set to 16 shards, but Lease demo-config says 8" in str(process.error)
    assert three.referee.moves == moves


@pytest.mark.parametrize("shards", [16, 128])
def test_a_deleted_config_does_not_let_another_shard_count_in(three, shards):
    """The claims still tell it, even those whose names have another number of digits."""
    three.start("d", settings=dataclasses.replace(SETTINGS, shards=shards))
    process = three.processes["d"]
    three.remove(three.names.config)
    three.advance(30)
    assert isinstance(process.error, ShardCountMismatch)
    assert three.server.get(three.names.config) is not None
    assert three.is_balanced()


def test_members_come_and_go_while_shards_stay_served(alone):
    for name in "bcde":
        alone.start(name)
    alone.advance_until(alone.is_balanced, within=alone.bound, what="no balance among five")
    for name in "bcd":
        alone.leave(name)
    alone.advance_until(alone.is_balanced, within=alone.bound, what="no balance among two")
    assert sorted(alone.processes) == ["a", "e"]
    assert alone.referee.longest_unowned < HANDOVER


def test_a_call_that_hangs_keeps_its_shard_and_is_told(alone):
    """Nobody else may have it: the call may still write."""
    alone.processes["a"].worker.stuck.update(range(SHARDS))
    alone.advance(2 * CALL_TIMEOUT)
    alone.start("b")
    alone.advance(40)
    hanging = alone.processes["a"].member.overdue()
    assert len(hanging) == SHARDS // 2
    assert not alone.processes["b"].member.owned
    alone.processes["a"].worker.stuck.clear()
    alone.advance_until(alone.is_balanced, within=HANDOVER, what="no balance")
    assert alone.processes["a"].member.overdue() == ()


@pytest.mark.parametrize("shards", [8, 32])
def test_at_rest_members_write_their_renewals_and_nothing_else(shards):
    settings = dataclasses.replace(SETTINGS, shards=shards)
    with Simulation("idle", settings=settings) as simulation:
        settled(simulation, "a", "b", "c")
        simulation.advance(30)
        before = len(simulation.server.writes)
        simulation.advance(60)
        writes = simulation.server.writes[before:]
    assert {write.name for write in writes} == {simulation.names.session(member) for member in "abc"}
    assert len(writes) == pytest.approx(3 * 60 / settings.renew_interval, rel=0.1)


def test_what_never_comes_is_told(alone):
    with pytest.raises(Violation, match=r"no unicorn after 1 s: owners .*\n  a/1"):
        alone.advance_until(lambda: False, within=1, what="no unicorn")
