"""What several providers use is made once and closed with the last of them."""

import pytest

from secret_manager_controller.providers.lending import Lender


class Thing:
    closed = 0

    async def aclose(self):
        self.closed += 1


async def test_users_of_one_key_share_one_thing_until_the_last_leaves():
    lender = Lender()
    first, second, other = (lender.enter(key, Thing) for key in ("a", "a", "b"))
    assert first is second is not other
    await lender.leave("a")
    assert first.closed == 0
    await lender.leave("a")
    assert (first.closed, other.closed) == (1, 0)


async def test_whoever_comes_after_the_last_has_left_gets_a_new_one():
    lender = Lender()
    first = lender.enter("a", Thing)
    await lender.leave("a")
    assert lender.enter("a", Thing) is not first


async def test_what_could_not_be_made_is_not_lent():
    lender = Lender()
    with pytest.raises(ZeroDivisionError):
        lender.enter("a", lambda: 1 / 0)
    assert isinstance(lender.enter("a", Thing), Thing)
