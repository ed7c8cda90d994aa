"""Listings are shared, and never older than the question."""

import asyncio

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.gcp_marks import filter_of
from secret_manager_controller.providers.listing import KEPT_FOR, Listing
from secret_manager_controller.testing.clocks import ManualClock

MARKS = tuple(OwnerMark("cluster-a", f"team/app-{number}") for number in range(5))
CLUSTER = filter_of("cluster-a", None)
NUMBERS = {"name_of": str, "mark_of": lambda _: None, "page": 100}


async def asked(listing, mark, **options):
    return (await listing.of(mark, **options)).secrets


async def resynced(listing, mark, **options):
    with occasion.of_reconcile():
        occasion.set_urgent(False)
        return await asked(listing, mark, **options)


class Store:
    """Lists numbers; each listing takes as long as the test wants."""

    def __init__(self):
        self.filters = []
        self.gates = []

    async def fetch(self, cluster, owner):
        gate = asyncio.Event()
        self.filters.append("" if cluster is None else filter_of(cluster, owner))
        self.gates.append(gate)
        number = len(self.filters)
        await gate.wait()
        return [number]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def listing(store):
    listing = Listing(store.fetch, **NUMBERS)
    yield listing
    await listing.aclose()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_alone_asks_for_what_is_his(store, listing):
    task = asyncio.create_task(asked(listing, MARKS[0]))
    await settle()
    store.gates[0].set()
    assert await task == [1]
    assert store.filters == [filter_of("cluster-a", MARKS[0].owner)]


async def test_several_at_a_time_ask_for_their_cluster_once(store, listing):
    tasks = [asyncio.create_task(asked(listing, mark)) for mark in MARKS]
    await settle()
    store.gates[0].set()
    assert await asyncio.gather(*tasks) == [[1]] * 5
    assert store.filters == [CLUSTER]


async def test_whoever_comes_while_one_is_under_way_gets_the_next(store, listing):
    first = asyncio.create_task(asked(listing, MARKS[0]))
    await settle()
    later = [asyncio.create_task(asked(listing, mark)) for mark in MARKS[1:3]]
    await settle()
    assert len(store.filters) == 1
    store.gates[0].set()
    assert await first == [1]
    await settle()
    store.gates[1].set()
    assert await asyncio.gather(*later) == [[2], [2]]
    assert store.filters[1:] == [CLUSTER]


async def test_clusters_and_all_secrets_are_listed_apart(store, listing):
    tasks = [
        asyncio.create_task(asked(listing, MARKS[0])),
        asyncio.create_task(asked(listing, OwnerMark("cluster-b", "team/app"))),
        asyncio.create_task(listing.everything()),
    ]
    await settle()
    for gate in store.gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert store.filters == [filter_of("cluster-a", "team/app-0"), filter_of("cluster-b", "team/app"), ""]


async def test_whoever_is_cancelled_leaves_the_others_theirs(store, listing):
    tasks = [asyncio.create_task(asked(listing, mark)) for mark in MARKS[:2]]
    await settle()
    tasks[0].cancel()
    await settle()
    store.gates[0].set()
    assert await tasks[1] == [1]


async def test_a_failure_that_nobody_waits_for_any_more_is_no_stray_one():
    async def fail(cluster, owner):
        raise RuntimeError

    listing = Listing(fail, **NUMBERS)
    task = asyncio.create_task(asked(listing, MARKS[0]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()


async def test_closing_ends_those_that_wait(store, listing):
    first = asyncio.create_task(asked(listing, MARKS[0]))
    await settle()
    second = asyncio.create_task(asked(listing, MARKS[1]))
    await settle()
    await listing.aclose()
    with pytest.raises(asyncio.CancelledError):
        await second
    store.gates[0].set()
    await first


async def resync(listing, mark, *, since):
    with occasion.of_reconcile():
        occasion.set_urgent(False)
        return await listing.of(mark, since=since)


class TestReuse:
    """A listing of several owners' secrets serves those for whom it is new enough."""

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def listing(self, clock):
        self.filters = []

        async def fetch(cluster, owner):
            self.filters.append(filter_of(cluster, owner))
            return [len(self.filters)]

        listing = Listing(fetch, **NUMBERS, clock=clock)
        yield listing
        await listing.aclose()

    async def test_a_hundred_objects_cost_five_listings_an_interval(self, listing, clock):
        """Five minutes each, spread over them, and a quarter of that is new enough."""
        for number in range(200):
            clock.now += 3.0
            await resynced(listing, OwnerMark("cluster-a", f"team/app-{number % 100}"), since=clock.now - 75.0)
        assert self.filters[0] == filter_of("cluster-a", "team/app-0")
        assert set(self.filters[1:]) == {CLUSTER}
        assert 8 <= len(self.filters) <= 10

    async def test_one_object_alone_asks_for_what_is_his(self, listing):
        assert [await asked(listing, MARKS[0], since=-75.0) for _ in range(3)] == [[1], [2], [3]]
        assert set(self.filters) == {filter_of("cluster-a", MARKS[0].owner)}

    async def test_who_wants_to_know_now_gets_a_new_one(self, listing):
        for mark in MARKS[:2]:
            await asked(listing, mark)
        assert await asked(listing, MARKS[2], since=0.0) == [2]
        assert await asked(listing, MARKS[2]) == [3]

    async def test_what_began_too_early_does_not_serve(self, listing, clock):
        for mark in MARKS[:2]:
            await asked(listing, mark)
        clock.now = 5.0
        assert await asked(listing, MARKS[2], since=0.1) == [3]

    async def test_who_wrote_since_gets_another_and_the_others_do_not(self, listing, clock):
        for mark in MARKS[:2]:
            await asked(listing, mark)
        with pytest.raises(RuntimeError), listing.written(MARKS[0]):  # noqa: PT012 - the end of a write that failed counts.
            clock.now = 1.0
            raise RuntimeError
        assert await asked(listing, MARKS[1], since=0.0) == [2]
        assert await asked(listing, MARKS[0], since=0.0) == [3]
        assert self.filters[-1] == filter_of("cluster-a", MARKS[0].owner)
        assert await asked(listing, MARKS[1], since=0.0) == [2]

    async def test_few_owners_among_many_secrets_get_a_listing_each(self, clock):
        """All that the cluster has takes three requests, so two owners ask for theirs."""
        filters = []

        async def fetch(cluster, owner):
            filters.append(owner)
            return list(range(250)) if owner is None else [owner]

        listing = Listing(fetch, **NUMBERS, clock=clock)
        await asyncio.gather(*(asked(listing, mark) for mark in MARKS))
        clock.now = 2 * KEPT_FOR
        both = await asyncio.gather(*(asked(listing, mark) for mark in MARKS[:2]))
        await listing.aclose()
        assert filters[0] is None
        assert set(filters[1:]) == {mark.owner for mark in MARKS[:2]}
        assert set(both[0]) == set(filters[1:])

    async def test_one_who_needs_a_newer_one_than_the_others_asks_for_what_is_his(self, clock):
        """A thousand were looked at, then one of them changes: that is one request, not twenty."""
        filters = []

        async def fetch(cluster, owner):
            filters.append(owner)
            return []  # As before the first of them was written.

        async def commit(mark):
            clock.now += 1.0
            await asked(listing, mark, since=clock.now)

        marks = [OwnerMark("cluster-a", f"team/app-{number}") for number in range(1_000)]
        listing = Listing(fetch, **NUMBERS, clock=clock)
        await asyncio.gather(*(asked(listing, mark, since=0.0) for mark in marks))
        await commit(marks[0])
        await commit(marks[1])
        assert filters == [None, marks[0].owner, marks[1].owner]
        # Those whom the kept one does not serve any more are worth another.
        clock.now += 15.0
        with occasion.of_reconcile():
            occasion.set_urgent(False)
            await asyncio.gather(*(asked(listing, mark, since=clock.now - 15.0) for mark in marks))
        await listing.aclose()
        assert filters[3:] == [None]

    async def test_what_turned_out_to_be_outdated_serves_nobody(self, listing):
        for mark in MARKS[:2]:
            await asked(listing, mark)
        listing.forget()
        assert await asked(listing, MARKS[2], since=0.0) == [3]

    async def test_another_cluster_has_its_own(self, listing):
        for mark in MARKS[:2]:
            await asked(listing, mark)
        assert await asked(listing, OwnerMark("cluster-b", "team/app"), since=0.0) == [3]

    async def test_it_is_kept_for_a_while_only(self, listing, monkeypatch):
        later = []
        loop = asyncio.get_running_loop()

        def call_later(delay, *work):
            later.append((delay, work))
            return asyncio.TimerHandle(0.0, print, (), loop)

        monkeypatch.setattr(loop, "call_later", call_later)
        for mark in MARKS[:2]:
            await asked(listing, mark)
        ((delay, (drop, *arguments)),) = later
        drop(*arguments)
        assert delay == KEPT_FOR
        assert await asked(listing, MARKS[2], since=0.0) == [3]
