import asyncio
import threading

import pytest

from secret_manager_controller.controller.handover import SLICE_SECONDS, LoopCalls


class Clock:
    """Moves by half a slice whenever it is looked at."""

    now = 0.0

    def __call__(self):
        self.now += SLICE_SECONDS / 2
        return self.now


async def test_calls_of_another_thread_are_made_here_and_in_order():
    made, done = [], asyncio.Event()
    calls = LoopCalls(asyncio.get_running_loop())

    def give():
        for number in range(1000):
            calls.make(lambda number=number: made.append((number, threading.get_ident())))
        calls.make(done.set)

    thread = threading.Thread(target=give)
    thread.start()
    await asyncio.wait_for(done.wait(), 30)
    thread.join()
    assert made == [(number, threading.get_ident()) for number in range(1000)]


async def test_many_calls_leave_the_loop_to_others_in_between():
    made = []
    calls = LoopCalls(asyncio.get_running_loop(), clock=Clock())
    for number in range(6):
        calls.make(made.append, number)
    seen = []
    while len(made) < 6:
        await asyncio.sleep(0)
        seen.append(len(made))
    assert seen == [2, 4, 6]


async def test_a_call_that_fails_is_told_and_keeps_no_other_from_being_made():
    told, made = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    calls = LoopCalls(loop)

    def fail():
        raise ValueError("wrong")

    calls.make(fail)
    calls.make(made.set)
    await asyncio.wait_for(made.wait(), 30)
    assert [str(error) for error in told] == ["wrong"]


def test_what_comes_after_the_end_of_the_loop_is_dropped():
    loop = asyncio.new_event_loop()
    loop.close()
    calls = LoopCalls(loop)
    calls.make(pytest.fail, "it was made")
    calls.make(pytest.fail, "it was made")
