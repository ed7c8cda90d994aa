"""What a vault holds: one listing of the whole vault, since Azure offers no filter, for all objects that ask.

A listing is a request for each 25 secrets of the vault, whoever owns them. Its pages come in the order of names, each
link to the next one holding the name that it goes on after: nothing in it, nor in Azure's documentation, speaks of a
listing that lags behind writes. It is shared, and for a while kept, because of what it costs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping

from secret_manager_controller.providers.azure_marks import Seen

Listed = Mapping[str, Seen]
"""The current version of each secret, by its name in lower case."""


class VaultListing:
    """The listings of one vault. Safe for concurrent use on one event loop.

    Args:
        fetch: lists the vault.
        clock: seconds that only grow.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Listed]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._found: tuple[float, Listed] = (-math.inf, {})
        self._running: tuple[float, asyncio.Task[Listed]] | None = None
        self._next: asyncio.Task[Listed] | None = None

    @property
    def began(self) -> float:
        """When the last listing that is complete began."""
        return self._found[0]

    def now(self) -> float:
        """Return the time that `since` is told in."""
        return self._clock()

    async def since(self, moment: float) -> Listed:
        """Return a listing that began at that moment or later: the last one, the one under way, or the next."""
        if self._found[0] >= moment:
            return self._found[1]
        if self._running is not None and self._running[0] >= moment:
            task = self._running[1]
        else:
            if self._next is None:
                self._next = asyncio.create_task(self._run())
                self._next.add_done_callback(_retrieve)
            task = self._next
        # Whoever is cancelled leaves the others their listing.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """End the listings that wait or are under way."""
        tasks = [task for task in (self._next, self._running and self._running[1]) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> Listed:
        async with self._lock:
            task, self._next = (
                self._next,
                None,
            )  # From here on, whoever asks is of the next one, or knows our beginning.
            assert task is not None  # It is this one.
            began = self._clock()
            self._running = (began, task)
            try:
                listed = await self._fetch()
            finally:
                self._running = None
            self._found = (began, listed)
            return listed


def _retrieve(task: asyncio.Task[Listed]) -> None:
    """Look at a failure, so that one whose callers were all cancelled is no unseen one."""
    if not task.cancelled():
        task.exception()
