"""The wiring's own small parts; the process as a whole is in tests/e2e."""

import asyncio
import gc
import logging
from types import SimpleNamespace

import pytest

from secret_manager_controller.controller.heartbeat import Heartbeat
from secret_manager_controller.controller.main import WatchLost, failure_of, log_unhandled, unhealthy
from secret_manager_controller.controller.sweep import KindInstalled
from secret_manager_controller.controller.watch_progress import WatchProgress

CANARY = "canary-77c1"


async def test_what_nobody_awaited_is_logged_by_its_type_alone(caplog):
    """asyncio's own handler writes the exception's text into the message."""

    async def fail():
        raise RuntimeError(CANARY)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_unhandled)
    task = asyncio.create_task(fail(), name="forgotten")
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        del task
        gc.collect()
    (record,) = caplog.records
    assert (record.getMessage(), record.error_type, record.task) == ("Unhandled error", "RuntimeError", "forgotten")
    assert CANARY not in str(vars(record))


async def ended(error, name="informer"):
    async def end():
        if error is not None:
            raise error

    task = asyncio.create_task(end(), name=name)
    await asyncio.wait([task])
    return task


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(None, "the informer ended by itself (NoneType)", id="returned"),
        pytest.param(RuntimeError(CANARY), "the informer ended by itself (RuntimeError)", id="failed"),
        pytest.param(KindInstalled("x was installed"), "x was installed", id="a kind was installed"),
    ],
)
async def test_what_ends_by_itself_is_told(error, told):
    running = asyncio.create_task(asyncio.sleep(3600))
    failure = failure_of(running, await ended(error))
    assert isinstance(failure, WatchLost)
    assert str(failure) == told
    running.cancel()


async def test_a_watch_that_hangs_makes_the_process_unhealthy_and_says_which():
    now = 0.0
    progress = WatchProgress(lambda: now)
    watches = SimpleNamespace(heartbeat=Heartbeat("event loop of the watches"))
    parts, running = SimpleNamespace(progress=progress), asyncio.create_task(asyncio.sleep(3600))
    progress.listed("GitRepository", 1)
    assert unhealthy(parts, watches, [running]) is None
    now = 100.0
    progress.listed("GitRepository", 1)
    assert (
        unhealthy(parts, watches, [running])
        == "the watch of GitRepository has not shown for 100 s what two listings did"
    )
    assert unhealthy(parts, watches, [await ended(None)]) == "the informer has ended"
    running.cancel()


async def test_watches_whose_event_loop_is_stuck_make_the_process_unhealthy():
    now = 0.0
    heartbeat = Heartbeat("event loop of the watches", clock=lambda: now)
    beat = asyncio.create_task(heartbeat.run())
    await asyncio.sleep(0)
    parts = SimpleNamespace(progress=WatchProgress(lambda: now))
    assert unhealthy(parts, SimpleNamespace(heartbeat=heartbeat), []) is None
    now = 11.0
    told = unhealthy(parts, SimpleNamespace(heartbeat=heartbeat), [])
    assert told.startswith("the event loop of the watches has not moved for 11 s, at ")
    beat.cancel()
