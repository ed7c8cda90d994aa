"""A listing of a vault serves all who ask for none that began later."""

import asyncio

import pytest

from secret_manager_controller.providers.azure_listing import VaultListing


class Fetch:
    """Listings that end when the test says so."""

    def __init__(self):
        self.count = 0
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.error = None

    async def __call__(self):
        self.count += 1
        number = self.count
        await self.going_on.wait()
        if self.error is not None:
            raise self.error
        return {f"listing-{number}": None}


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def fetch():
    return Fetch()


@pytest.fixture
async def listing(fetch):
    listing = VaultListing(fetch, clock=Clock())
    yield listing
    await listing.aclose()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_last_one_serves_who_is_content_with_it(listing, fetch):
    moment = listing.now()
    assert await listing.since(moment) == {"listing-1": None}
    assert await listing.since(moment) == {"listing-1": None}
    assert fetch.count == 1


async def test_whoever_asks_for_a_later_one_gets_the_next(listing):
    await listing.since(listing.now())
    assert await listing.since(listing.now()) == {"listing-2": None}


async def test_who_asks_while_one_is_under_way_shares_the_next(listing, fetch):
    fetch.going_on.clear()
    first = asyncio.create_task(listing.since(listing.now()))
    await settle()
    later = [asyncio.create_task(listing.since(listing.now())) for _ in range(5)]
    await settle()
    fetch.going_on.set()
    assert await first == {"listing-1": None}
    assert await asyncio.gather(*later) == [{"listing-2": None}] * 5
    assert fetch.count == 2


async def test_who_is_content_with_its_beginning_shares_the_one_under_way(listing, fetch):
    moment = listing.now()
    fetch.going_on.clear()
    asks = [asyncio.create_task(listing.since(moment))]
    await settle()
    asks.append(asyncio.create_task(listing.since(moment)))
    await settle()
    fetch.going_on.set()
    assert await asyncio.gather(*asks) == [{"listing-1": None}] * 2


async def test_a_failure_is_told_to_all_and_not_kept(listing, fetch):
    fetch.error = RuntimeError("a fault of the test")
    moment = listing.now()
    outcomes = await asyncio.gather(*(listing.since(moment) for _ in range(3)), return_exceptions=True)
    assert outcomes == [fetch.error] * 3
    fetch.error = None
    assert await listing.since(moment) == {"listing-2": None}


async def test_whoever_is_cancelled_leaves_the_others_their_listing(listing, fetch):
    fetch.going_on.clear()
    moment = listing.now()
    asks = [asyncio.create_task(listing.since(moment)) for _ in range(2)]
    await settle()
    asks[0].cancel()
    await settle()
    fetch.going_on.set()
    assert await asks[1] == {"listing-1": None}


async def test_a_failure_that_nobody_waits_for_is_no_unseen_one(listing, fetch):
    """Otherwise asyncio complains when the task is collected, and warnings fail this run."""
    fetch.going_on.clear()
    fetch.error = RuntimeError("a fault of the test")
    ask = asyncio.create_task(listing.since(listing.now()))
    await settle()
    ask.cancel()
    await settle()
    fetch.going_on.set()
    await settle()


async def test_closing_ends_all(listing, fetch):
    fetch.going_on.clear()
    asks = []
    for _ in range(2):
        asks.append(asyncio.create_task(listing.since(listing.now())))
        await settle()
    await listing.aclose()
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
