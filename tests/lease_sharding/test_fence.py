"""The fence of a member without others."""

import pytest

from lease_sharding.fence import OwnershipLost, SoleMemberFence


@pytest.mark.parametrize("margin", [0, 7, 1e9])
def test_it_holds_for_any_margin_until_it_is_revoked(margin):
    fence = SoleMemberFence()
    fence.check(margin)
    fence.revoke()
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            fence.check(margin)
