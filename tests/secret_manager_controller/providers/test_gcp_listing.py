"""Listings are shared, and never older than the question."""

import asyncio

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.gcp_listing import Listing
from secret_manager_controller.providers.gcp_marks import filter_of

MARKS = tuple(OwnerMark("cluster-a", f"team/app-{number}") for number in range(5))
CLUSTER = filter_of("cluster-a", None)


class Store:
    """Lists numbers; each listing takes as long as the test wants."""

    def __init__(self):
        self.filters = []
        self.gates = []

    async def fetch(self, text):
        gate = asyncio.Event()
        self.filters.append(text)
        self.gates.append(gate)
        number = len(self.filters)
        await gate.wait()
        return [number]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def listing(store):
    listing = Listing(store.fetch)
    yield listing
    await listing.aclose()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_alone_asks_for_what_is_his(store, listing):
    task = asyncio.create_task(listing.of(MARKS[0]))
    await settle()
    store.gates[0].set()
    assert await task == [1]
    assert store.filters == [filter_of("cluster-a", MARKS[0].owner)]


async def test_several_at_a_time_ask_for_their_cluster_once(store, listing):
    tasks = [asyncio.create_task(listing.of(mark)) for mark in MARKS]
    await settle()
    store.gates[0].set()
    assert await asyncio.gather(*tasks) == [[1]] * 5
    assert store.filters == [CLUSTER]


async def test_whoever_comes_while_one_is_under_way_gets_the_next(store, listing):
    first = asyncio.create_task(listing.of(MARKS[0]))
    await settle()
    later = [asyncio.create_task(listing.of(mark)) for mark in MARKS[1:3]]
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
        asyncio.create_task(listing.of(MARKS[0])),
        asyncio.create_task(listing.of(OwnerMark("cluster-b", "team/app"))),
        asyncio.create_task(listing.everything()),
    ]
    await settle()
    for gate in store.gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert store.filters == [filter_of("cluster-a", "team/app-0"), filter_of("cluster-b", "team/app"), ""]


async def test_whoever_is_cancelled_leaves_the_others_theirs(store, listing):
    tasks = [asyncio.create_task(listing.of(mark)) for mark in MARKS[:2]]
    await settle()
    tasks[0].cancel()
    await settle()
    store.gates[0].set()
    assert await tasks[1] == [1]


async def test_a_failure_that_nobody_waits_for_any_more_is_no_stray_one():
    async def fail(text):
        raise RuntimeError(text)

    listing = Listing(fail)
    task = asyncio.create_task(listing.of(MARKS[0]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()


async def test_closing_ends_those_that_wait(store, listing):
    first = asyncio.create_task(listing.of(MARKS[0]))
    await settle()
    second = asyncio.create_task(listing.of(MARKS[1]))
    await settle()
    await listing.aclose()
    with pytest.raises(asyncio.CancelledError):
        await second
    store.gates[0].set()
    await first


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class TestReuse:
    """A listing of several owners' secrets serves those who ask within five seconds of its beginning."""

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    async def listing(self, clock):
        self.filters = []

        async def fetch(text):
            self.filters.append(text)
            return [len(self.filters)]

        listing = Listing(fetch, reuse=5.0, clock=clock)
        yield listing
        await listing.aclose()

    async def test_a_sweep_of_many_objects_one_by_one_costs_two_listings(self, listing, clock):
        for number in range(100):
            clock.now += 0.04
            await listing.of(OwnerMark("cluster-a", f"team/app-{number}"))
        assert self.filters == [filter_of("cluster-a", "team/app-0"), CLUSTER]

    async def test_one_object_alone_is_never_told_what_is_old(self, listing):
        assert [await listing.of(MARKS[0]) for _ in range(3)] == [[1], [2], [3]]
        assert set(self.filters) == {filter_of("cluster-a", MARKS[0].owner)}

    async def test_after_its_time_it_serves_nobody(self, listing, clock):
        for mark in MARKS[:2]:
            await listing.of(mark)
        clock.now = 5.1
        assert await listing.of(MARKS[2]) == [3]

    async def test_who_wrote_since_gets_another_and_the_others_do_not(self, listing, clock):
        for mark in MARKS[:2]:
            await listing.of(mark)
        with pytest.raises(RuntimeError), listing.written(MARKS[0]):  # noqa: PT012 - the end of a write that failed counts.
            clock.now = 1.0
            raise RuntimeError
        assert await listing.of(MARKS[1]) == [2]
        assert await listing.of(MARKS[0]) == [3]
        assert await listing.of(MARKS[1]) == [3]

    async def test_what_turned_out_to_be_outdated_serves_nobody(self, listing):
        for mark in MARKS[:2]:
            await listing.of(mark)
        listing.forget()
        assert await listing.of(MARKS[2]) == [3]

    async def test_another_cluster_has_its_own(self, listing):
        for mark in MARKS[:2]:
            await listing.of(mark)
        assert await listing.of(OwnerMark("cluster-b", "team/app")) == [3]

    async def test_what_nobody_asks_for_is_let_go(self, monkeypatch):
        async def fetch(text):
            return [text]

        later = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(
            loop, "call_later", lambda delay, *work: later.append((delay, work)) or asyncio.Handle(*work[:1], (), loop)
        )
        listing = Listing(fetch, reuse=5.0)
        await asyncio.gather(*(listing.of(mark) for mark in MARKS))
        ((delay, (drop, *arguments)),) = later
        drop(*arguments)
        assert (delay, listing._kept) == (5.0, {})
        await listing.aclose()
