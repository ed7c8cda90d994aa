"""Counts the calls that are running for each shard, so that a drain can wait for the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """The running calls by shard; for one event loop.

    A call that runs in a thread cannot be cancelled: enter before it starts, and leave when the thread has returned.
    """

    def __init__(self) -> None:
        self._running: dict[int, int] = {}
        self._left = asyncio.Event()

    def count(self, shard: int) -> int:
        """Return how many calls of a shard are running."""
        return self._running.get(shard, 0)

    @contextmanager
    def running(self, shard: int) -> Iterator[None]:
        """Count a call as running for as long as the context lasts."""
        self._running[shard] = self.count(shard) + 1
        try:
            yield
        finally:
            self._running[shard] -= 1
            if not self._running[shard]:
                del self._running[shard]
                self._left.set()
                self._left = asyncio.Event()

    async def idle(self, shard: int) -> None:
        """Wait until no call of a shard is running."""
        while self.count(shard):
            await self._left.wait()
