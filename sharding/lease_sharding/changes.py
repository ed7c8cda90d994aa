"""Tells several waiters in one event loop that something has changed; none of them misses it."""

from __future__ import annotations

import asyncio
import contextlib


class Changes:
    """Counts changes, and lets waiters sleep until there are more than they have seen.

    Attributes:
        count: how many there were; read it before looking at what may have changed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def note(self) -> None:
        """Tell that something has changed."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def after(self, count: int, *, patience: float | None = None) -> None:
        """Wait until there are more changes than `count`, or for `patience` seconds."""
        if self.count == count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._event.wait()
