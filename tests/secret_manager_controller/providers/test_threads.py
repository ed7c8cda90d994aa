"""Threads are shared by kind of store, and a place that does not answer gives them back."""

import asyncio
import threading

import pytest

from secret_manager_controller.errors import Reason
from secret_manager_controller.providers.threads import (
    FIRST_REST,
    LONGEST_REST,
    PLACE_THREADS,
    SLOW,
    SLOW_IN_A_ROW,
    THREADS,
    Place,
    PlaceResting,
    Pool,
    place_of,
)
from secret_manager_controller.testing.clocks import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def place(clock):
    return Place("aws eu-north-1", Pool("aws"), clock=clock)


async def ask(place, seconds=0.1, *, answered=True):
    async with place.slot():
        place.told(seconds, answered=answered)


async def stop(place):
    for _ in range(SLOW_IN_A_ROW):
        await ask(place, SLOW, answered=False)


async def test_a_place_that_has_stopped_is_not_asked_for_a_while(place, clock):
    await stop(place)
    with pytest.raises(PlaceResting, match=r"aws eu-north-1 did not answer.* again in 2 s") as raised:
        await ask(place)
    assert (raised.value.reason, raised.value.retry_after) == (Reason.STORE_UNAVAILABLE, FIRST_REST)
    clock.now += FIRST_REST
    await ask(place)
    await ask(place)


async def test_its_rest_grows_up_to_a_minute(place, clock):
    await stop(place)
    rests = []
    for _ in range(7):
        with pytest.raises(PlaceResting) as raised:
            await ask(place)
        rests.append(raised.value.retry_after)
        clock.now += rests[-1]
        await ask(place, SLOW, answered=False)
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_REST, LONGEST_REST]


async def test_one_request_at_a_time_looks_whether_it_is_back(place, clock):
    await stop(place)
    clock.now += FIRST_REST
    async with place.slot():
        with pytest.raises(PlaceResting):
            await ask(place)
        place.told(0.1, answered=True)
    await ask(place)


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([(SLOW, False)] * (SLOW_IN_A_ROW - 1), id="too few"),
        pytest.param([(0.01, False)] * 20, id="refused at once, which holds no thread"),
        pytest.param([(SLOW, False), (SLOW, False), (0.1, True), (SLOW, False)], id="an answer between"),
        pytest.param([(9.0, True)] * 20, id="slow answers"),
    ],
)
async def test_a_place_that_still_answers_is_asked(place, requests):
    for seconds, answered in requests:
        await ask(place, seconds, answered=answered)
    await ask(place)


async def test_a_probe_that_was_cancelled_leaves_its_turn(place, clock):
    await stop(place)
    clock.now += FIRST_REST
    with pytest.raises(asyncio.CancelledError):
        async with place.slot():
            raise asyncio.CancelledError
    await ask(place)


async def test_one_place_leaves_threads_to_the_others():
    held = threading.Event()
    one, other = place_of("test", "one"), place_of("test", "other")

    async def hold():
        async with one.slot():
            await one.run(held.wait)

    tasks = [asyncio.create_task(hold()) for _ in range(THREADS)]
    await asyncio.sleep(0)  # Each takes what it can get.
    try:
        async with other.slot():
            running = await other.run(lambda: [thread.name for thread in threading.enumerate()])
        assert sum(name.startswith("test-provider") for name in running) == PLACE_THREADS + 1
    finally:
        held.set()
        await asyncio.gather(*tasks)


async def test_a_kind_of_store_has_its_places_and_threads_once():
    assert place_of("test", "one") is place_of("test", "one")
    assert place_of("test", "one") is not place_of("other", "one")
