"""Virtual time, and processes that are stopped, continued and killed in it."""

import asyncio

import pytest

from lease_sharding.testing import Actor, VirtualLoop
from lease_sharding.testing.virtual import START


@pytest.fixture
def loop():
    loop = VirtualLoop()
    yield loop
    loop.end()


async def ticking(loop, ticks):
    try:
        while True:
            await asyncio.sleep(1)
            ticks.append(loop.time() - START)
    finally:
        ticks.append("ended")


def test_an_hour_passes_at_once(loop):
    ticks = []
    Actor(loop).start(ticking(loop, ticks))
    loop.run_for(3600.5)
    assert ticks == [float(second) for second in range(1, 3601)]


def test_a_stopped_process_takes_no_step_and_goes_on_where_it_was(loop):
    ticks, others = [], []
    actor = Actor(loop)
    actor.start(ticking(loop, ticks))
    Actor(loop).start(ticking(loop, others))
    loop.run_for(1.5)
    actor.pause()
    loop.run_for(10)
    assert ticks == [1.0]
    actor.resume()
    loop.run_for(1.6)
    assert ticks == [1.0, 11.5, 12.5]
    assert len(others) == 13


def test_a_killed_process_does_not_even_clean_up(loop):
    ticks = []
    actor = Actor(loop)
    actor.start(ticking(loop, ticks))
    loop.run_for(1.5)
    actor.kill()
    loop.run_for(100)
    assert ticks == [1.0]


def test_what_a_process_starts_belongs_to_it(loop):
    ticks = []

    async def parent():
        await asyncio.gather(ticking(loop, ticks), ticking(loop, ticks))

    actor = Actor(loop)
    actor.start(parent())
    loop.run_for(1.5)
    actor.pause()
    loop.run_for(5)
    assert ticks == [1.0, 1.0]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_step_that_was_cancelled_while_the_process_was_stopped_is_not_taken(loop, cancelled):
    told, handles = [], []
    actor = Actor(loop)

    async def timer():
        handles.append(asyncio.get_running_loop().call_later(1, told.append, "late"))

    actor.start(timer())
    loop.run_for(0.5)
    actor.pause()
    loop.run_for(3)
    if cancelled:
        handles[0].cancel()
    actor.resume()
    loop.run_for(1)
    assert told == ([] if cancelled else ["late"])


def test_waiting_for_nothing_is_told(loop):
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        loop.run_until_complete(loop.create_future())


def test_the_same_program_takes_the_same_steps():
    def run():
        loop, ticks = VirtualLoop(), []
        for _ in range(3):
            Actor(loop).start(ticking(loop, ticks))
        loop.run_for(10)
        loop.end()
        return ticks

    assert run() == run()
