"""The referee can fail: each thing that must never happen is told when it does."""

import pytest

from lease_sharding.fence import ShardFence
from lease_sharding.testing.referee import Referee


class Stage:
    def __init__(self):
        self.now = 0.0
        self.referee = Referee(16, lambda: self.now)

    def fence(self, shard, epoch=1, deadline=10.0):
        return ShardFence(shard=shard, epoch=epoch, deadline=lambda: deadline, clock=lambda: self.now)

    def gain(self, process, shard=3, *, epoch=1, of=8, deadline=10.0):
        return self.referee.gained(process, shard, of=of, fence=self.fence(shard, epoch, deadline))

    @property
    def verdict(self):
        return str(self.referee.violation) if self.referee.violation else None


@pytest.fixture
def stage():
    return Stage()


def test_a_proper_handover_is_none(stage):
    right = stage.gain("a")
    effect = stage.referee.begin(right, margin=3)
    effect.returned = True
    right.fence.revoke("handed over")
    stage.referee.lost(right)
    stage.gain("b", epoch=2)
    assert stage.referee.owners() == {3: "b", 11: "b"}
    assert stage.verdict is None
    assert (stage.referee.moves, stage.referee.effects) == (2, 1)


def test_a_takeover_after_the_last_effects_margin_is_none(stage):
    stage.now = 7.0
    stage.referee.begin(stage.gain("a"), margin=3)
    stage.now = 10.01
    stage.gain("b", epoch=2, deadline=20.0)
    assert stage.referee.owners() == {3: "b", 11: "b"}
    assert stage.verdict is None


def test_a_gain_while_another_fence_holds(stage):
    stage.gain("a")
    stage.gain("b", epoch=2)
    assert stage.verdict == "b gained shard 3 while the fence of a still held"


def test_a_gain_while_an_effect_is_under_way_even_of_a_dead_process(stage):
    stage.referee.begin(stage.gain("a"), margin=3)
    stage.referee.forget("a")
    stage.now = 2.9
    stage.gain("b", epoch=2)
    assert stage.verdict == "b gained shard 3 while an effect of a was under way"


def test_an_effect_after_the_next_owner_began(stage):
    late = stage.gain("a", deadline=1.0)
    stage.now = 2.0
    stage.gain("b", epoch=2)
    stage.referee.begin(late, margin=3)
    assert stage.verdict == "a began an effect on shard 3 after the next owner did"


def test_a_fence_that_holds_again_after_the_next_owner_began(stage):
    deadlines = [1.0]
    revived = ShardFence(shard=3, epoch=1, deadline=lambda: deadlines[-1], clock=lambda: stage.now)
    stage.referee.gained("a", 3, of=8, fence=revived)
    stage.now = 2.0
    stage.gain("b", epoch=2)
    deadlines.append(9.0)
    stage.referee.owners()
    assert stage.verdict == "a and b may act for key 3 at one time"


def test_members_of_two_shard_counts_with_one_key(stage):
    stage.gain("a", 3, of=8)
    stage.gain("b", 11, of=16)
    assert stage.verdict == "b gained shard 11 while the fence of a still held"


def test_an_epoch_that_does_not_grow(stage):
    stage.gain("a", epoch=2, deadline=-1.0)
    stage.gain("b", epoch=2)
    assert stage.verdict == "b gained shard 3 in epoch 2, after 2"


def test_an_epoch_that_restarts_after_somebody_deleted_the_claim(stage):
    stage.gain("a", epoch=2, deadline=-1.0)
    stage.referee.spoil_epochs(3, of=8)
    stage.gain("b", epoch=1)
    assert stage.verdict is None


def test_a_loss_that_is_told_while_the_fence_holds_or_twice(stage):
    stage.referee.lost(stage.gain("a"))
    assert stage.verdict == "a was told that it lost shard 3 while its fence still held"
    other = Stage()
    right = other.gain("a", deadline=-1.0)
    other.referee.lost(right)
    other.referee.lost(right)
    assert other.verdict == "a lost shard 3 twice"


def test_a_gain_without_a_loss(stage):
    stage.gain("a", deadline=-1.0)
    stage.gain("a", epoch=2)
    assert stage.verdict == "a gained shard 3 twice without losing it"


def test_a_key_that_is_unowned_for_too_long(stage):
    for shard in range(8):
        stage.gain("a", shard)
    stage.referee.owners()
    stage.now = 15.0
    stage.referee.owners()
    stage.referee.judge_unowned(since=0.0, bound=15.0)
    stage.referee.judge_unowned(since=14.0, bound=5.0)
    assert stage.verdict is None
    assert stage.referee.unowned() == tuple(range(16))
    stage.referee.judge_unowned(since=0.0, bound=14.9)
    assert stage.verdict == "key 0 was unowned for 15.0 s although a healthy member was there"
