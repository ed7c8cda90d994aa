"""Keeps the view up to date: a listing every few seconds, and a watch in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from lease_sharding.context import Context
from lease_sharding.errors import ApiError
from lease_sharding.protocol import LeaseChange

logger = logging.getLogger(__name__)

SILENT_LISTINGS = 3
"""Listings in a row that showed something new while the watch told nothing; it is opened anew then."""


class Sync:
    """Lists and watches for one member.

    Listings are what a member relies on: each shows whether its claims are still its own. The watch makes it quick, and
    may be late, silent or broken.
    """

    def __init__(self, context: Context, listed: Callable[[float], None]) -> None:
        """Make an idle one.

        Args:
            context: the member's surroundings.
            listed: called after each listing was taken over, with the time at which it began.
        """
        self._context = context
        self._listed = listed
        self._version = ""
        self._watching = False
        self._silent = 0
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        watch = asyncio.create_task(self._watch(), name="lease-watch")
        try:
            while True:
                watch = await self._reopen_if_silent(watch)
                started = self._context.clock()
                delay = self._context.retry_delay
                if await self._list(started):
                    settings = self._context.settings
                    interval = settings.resync_interval if self._watching else settings.poll_interval
                    delay = max(started + interval - self._context.clock(), 0)
                await asyncio.sleep(delay)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _list(self, started: float) -> bool:
        try:
            listing = await self._context.client.list()
        except ApiError as error:
            logger.info("Listing failed", extra={"status": error.status, "error": str(error)})
            return False
        self._version = listing.resource_version
        if self._context.view.replace(listing.leases, listing.resource_version, self._context.clock()):
            self._silent += self._watching
        self._listed(started)
        self._context.changes.note()
        self.ready.set()
        return True

    async def _watch(self) -> None:
        await self.ready.wait()
        while (stream := self._context.client.watch(self._version)) is not None:
            self._watching = True
            with contextlib.suppress(ApiError):
                await self._follow(stream)
            self._watching = False
            await asyncio.sleep(self._context.retry_delay)

    async def _follow(self, stream: AsyncGenerator[LeaseChange, None]) -> None:
        async with contextlib.aclosing(stream):
            async for change in stream:
                self._silent = 0
                lease = change.lease
                if change.deleted:
                    self._context.view.remove(lease.name, lease.resource_version)
                else:
                    self._context.view.put(lease, self._context.clock())
                self._context.changes.note()

    async def _reopen_if_silent(self, watch: asyncio.Task[None]) -> asyncio.Task[None]:
        if self._silent < SILENT_LISTINGS:
            return watch
        logger.info("The watch is silent; opening it anew")
        self._silent = 0
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        self._watching = False
        return asyncio.create_task(self._watch(), name="lease-watch")
