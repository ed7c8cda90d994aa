"""A loop that is stuck is told from outside of it, with the place and no value."""

import asyncio
import logging
import threading

import pytest

from secret_manager_controller.controller.heartbeat import Heartbeat, LoopWatch, watched

CANARY = "canary-c0ffee"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class BlockedLoop:
    """An event loop in a thread, which a task blocks until it is let go."""

    def __init__(self, clock):
        self.heartbeat = Heartbeat("event loop", clock=clock)
        self.clock = clock
        self.blocked, self.go_on, self.beating = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        assert self.blocked.wait(10)
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self._thread.join()

    async def _run(self):
        beat = asyncio.create_task(self.heartbeat.run())
        await asyncio.sleep(0)
        self.hold_everything_up(CANARY)
        beat.cancel()
        again = asyncio.create_task(self.heartbeat.run())
        await asyncio.sleep(0)
        again.cancel()

    def hold_everything_up(self, secret):
        self.blocked.set()
        self.go_on.wait(10)


@pytest.fixture
def clock():
    return Clock()


def test_a_loop_that_has_not_begun_is_not_stuck(clock):
    heartbeat = Heartbeat("event loop", clock=clock)
    clock.now = 1000
    assert heartbeat.stuck() is None


def test_a_loop_that_is_blocked_is_told_with_its_place_and_no_value(clock):
    with BlockedLoop(clock) as loop:
        clock.now = 10
        assert loop.heartbeat.stuck() is None
        clock.now = 12
        told = loop.heartbeat.stuck()
    assert told.startswith("the event loop has not moved for 12 s, at threading.py:")
    assert "test_heartbeat.py:" in told
    assert "hold_everything_up" in told
    assert CANARY not in told
    assert loop.heartbeat.stuck() is None  # It has beaten since.


def test_it_is_logged_when_that_changes_and_not_again_and_again(clock, caplog):
    caplog.set_level(logging.INFO)
    with BlockedLoop(clock) as loop:
        watch = LoopWatch([loop.heartbeat], clock=clock)
        for clock.now in (5, 12, 13, 14):
            watch.look()
    watch.look()
    assert [record.getMessage() for record in caplog.records] == ["Event loop is stuck", "Event loop moves again"]
    assert "hold_everything_up" in caplog.records[0].error


def test_who_was_asleep_with_all_of_the_process_says_nothing(clock, caplog):
    with BlockedLoop(clock) as loop:
        watch = LoopWatch([loop.heartbeat], clock=clock)
        clock.now = 100
        watch.look()
    assert caplog.records == []


def test_the_thread_that_watches_ends_with_its_context():
    with watched(Heartbeat("event loop")):
        assert "loop-watch" in {thread.name for thread in threading.enumerate()}
    assert "loop-watch" not in {thread.name for thread in threading.enumerate()}
