"""What expires is renewed once, in time, and kept while it holds."""

import asyncio

import pytest

from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.providers.renewing import RENEW_AGAIN, Renewing
from secret_manager_controller.testing.clocks import ManualClock

LASTS, BEFORE = 3600.0, 600.0


class Source:
    """Hands out numbered tokens, or fails."""

    def __init__(self):
        self.count = 0
        self.lasts = LASTS
        self.down = False

    async def __call__(self):
        await asyncio.sleep(0)
        if self.down:
            raise RetryableError(Reason.STORE_UNAVAILABLE, "a fault of the test")
        self.count += 1
        return f"token-{self.count}", self.lasts


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def renewing(source, clock):
    return Renewing(source, what="test", before=BEFORE, clock=clock)


async def test_concurrent_callers_wait_for_one(renewing, source):
    assert set(await asyncio.gather(*(renewing.current() for _ in range(20)))) == {"token-1"}


async def test_it_is_kept_until_shortly_before_its_end(renewing, clock):
    await renewing.current()
    clock.now += LASTS - BEFORE - 1
    assert await renewing.current() == "token-1"
    clock.now += 1
    assert set(await asyncio.gather(*(renewing.current() for _ in range(20)))) == {"token-2"}


async def test_what_lasts_shortly_is_renewed_half_way(renewing, source, clock):
    source.lasts = 300.0
    await renewing.current()
    clock.now += 149
    assert await renewing.current() == "token-1"
    clock.now += 1
    assert await renewing.current() == "token-2"


async def test_one_that_is_spent_early_is_renewed_once(renewing):
    spent = await renewing.current()
    assert set(await asyncio.gather(*(renewing.after(spent) for _ in range(20)))) == {"token-2"}
    assert await renewing.current() == "token-2"


async def test_an_outage_while_it_holds_goes_unnoticed(renewing, source, clock):
    await renewing.current()
    source.down = True
    clock.now += LASTS - BEFORE
    assert await renewing.current() == "token-1"
    source.down = False
    assert await renewing.current() == "token-1"  # The next attempt is due in a minute.
    clock.now += RENEW_AGAIN
    assert await renewing.current() == "token-2"


async def test_an_outage_when_it_is_over_is_told(renewing, source, clock):
    await renewing.current()
    source.down = True
    clock.now += LASTS - BEFORE
    await renewing.current()
    clock.now += BEFORE
    for _ in range(2):
        with pytest.raises(RetryableError):
            await renewing.current()
    source.down = False
    assert await renewing.current() == "token-2"


async def test_an_outage_when_it_is_spent_is_told_until_it_ends(renewing, source):
    spent = await renewing.current()
    source.down = True
    with pytest.raises(RetryableError):
        await renewing.after(spent)
    with pytest.raises(RetryableError):
        await renewing.current()
    source.down = False
    assert await renewing.current() == "token-2"
