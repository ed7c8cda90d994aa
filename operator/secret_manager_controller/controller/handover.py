"""Calls that one thread makes in another thread's event loop, which stays free for everything else meanwhile.

The first listing of 10,000 objects comes as 10,000 calls within seconds. As callbacks of its own each, a loop makes
all that wait in one go and answers no probe for as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final

SLICE_SECONDS: Final = 0.02
"""How long calls may keep the loop before all else in it has its turn."""


class LoopCalls:
    """Makes calls in a loop, in the order in which they were given.

    Args:
        loop: where they are made.
        clock: monotonic seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._scheduled = False

    def make(self, call: Callable[..., object], *arguments: object) -> None:
        """Have a call made soon; from any thread. Nothing happens if the loop has ended: nobody is to be told then."""
        self._waiting.append((call, arguments))
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._make_some)

    def _make_some(self) -> None:
        until = self._clock() + SLICE_SECONDS
        try:
            while self._waiting:
                call, arguments = self._waiting.popleft()
                call(*arguments)
                if self._clock() >= until:
                    break
        finally:  # A call that fails is the loop's to tell, and keeps no other from being made.
            self._scheduled = False
            if self._waiting:  # Looked at after that: who adds one now schedules it himself, at worst once more.
                self._scheduled = True
                self._loop.call_soon(self._make_some)
