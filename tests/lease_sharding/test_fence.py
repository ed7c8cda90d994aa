"""Fences: of a member without others, and of one shard."""

import time

import pytest

from lease_sharding.fence import FencingToken, OwnershipLost, ShardFence, SoleMemberFence, boottime


@pytest.mark.parametrize("margin", [0, 7, 1e9])
def test_it_holds_for_any_margin_until_it_is_revoked(margin):
    fence = SoleMemberFence()
    fence.check(margin)
    fence.revoke()
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            fence.check(margin)


class TestShardFence:
    def make(self, deadline=10.0):
        self.deadline, self.now = deadline, 0.0
        return ShardFence(shard=3, epoch=7, deadline=lambda: self.deadline, clock=lambda: self.now)

    def test_it_holds_as_long_as_the_margin_fits_before_the_deadline(self):
        fence = self.make()
        fence.check(10)
        with pytest.raises(OwnershipLost, match=r"safe for 10\.0 s, not 10\.1 s"):
            fence.check(10.1)
        self.now = 9.0
        fence.check(1)
        self.now = 11.0
        with pytest.raises(OwnershipLost, match=r"safe for 0\.0 s"):
            fence.check(0)

    def test_a_renewal_moves_the_deadline(self):
        fence = self.make()
        self.now, self.deadline = 9.0, 12.0
        fence.check(3)
        assert fence.token == FencingToken(shard=3, epoch=7, deadline=12.0)

    def test_once_revoked_it_never_holds_again(self):
        fence = self.make()
        fence.revoke("it is being handed over")
        fence.revoke("later")
        with pytest.raises(OwnershipLost, match="shard 3: it is being handed over"):
            fence.check(0)
        assert fence.token.deadline == float("-inf")


def test_the_clock_counts_on_while_the_machine_sleeps():
    assert boottime() <= boottime()
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(boottime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
