"""Whether the event loops move: each beats, and a thread that no loop can block tells which one does not, and where.

`/healthz` is answered by the controller's own loop, so that it cannot be answered while that one is stuck: the probe
times out, and the log says why.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Final

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 10.0
"""Nothing may block a loop for longer than some milliseconds; a machine that has too much to do may, for a second."""
FRAMES: Final = 4
"""Innermost frames that are told: enough for the call that blocks and who of us made it."""


class Heartbeat:
    """Beats in one event loop.

    Args:
        name: what people call the loop.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._last: float | None = None
        self._thread = 0

    async def run(self) -> None:
        """Beat until cancelled, in the loop that is to be watched."""
        self._thread = threading.get_ident()
        try:
            while True:
                self._last = self._clock()
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            self._last = None  # A loop that has ended is told of by whoever waits for it.

    def stuck(self) -> str | None:
        """Return that the loop does not move and where it is, as a sentence; None if it moves, or does not run."""
        last = self._last
        if last is None or (silent := self._clock() - last) <= STUCK_SECONDS:
            return None
        return f"the {self.name} has not moved for {silent:.0f} s, {self._place()}"

    def _place(self) -> str:
        """Return where its thread is: files, lines and names of functions, nothing that they hold."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - CPython's documented way.
        places: list[str] = []
        while frame is not None and len(places) < FRAMES:
            code = frame.f_code
            places.append(f"{PurePath(code.co_filename).name}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        return "at " + " < ".join(places) if places else "and its thread has ended"


class LoopWatch:
    """Logs when a loop is stuck, and when it moves again."""

    def __init__(self, heartbeats: Sequence[Heartbeat], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._heartbeats = heartbeats
        self._clock = clock
        self._looked = clock()
        self._stuck: set[str] = set()

    def look(self) -> None:
        """Look once, and log what has changed."""
        now = self._clock()
        asleep, self._looked = now - self._looked > STUCK_SECONDS, now
        if asleep:  # All of the process stood still; the loops need a moment too.
            return
        for heartbeat in self._heartbeats:
            told = heartbeat.stuck()
            if told is not None and heartbeat.name not in self._stuck:
                self._stuck.add(heartbeat.name)
                logger.error("Event loop is stuck", extra={"error": told})
            elif told is None and heartbeat.name in self._stuck:
                self._stuck.remove(heartbeat.name)
                logger.warning("Event loop moves again", extra={"loop": heartbeat.name})


@contextmanager
def watched(*heartbeats: Heartbeat) -> Iterator[None]:
    """Watch loops from a thread while the context lasts."""
    watch, ended = LoopWatch(heartbeats), threading.Event()

    def run() -> None:
        while not ended.wait(BEAT_SECONDS):
            watch.look()

    thread = threading.Thread(target=run, name="loop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
