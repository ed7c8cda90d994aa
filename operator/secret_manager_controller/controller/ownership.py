"""Which keys this replica works on: those of the shards that it owns, each turn under its shard's fence."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from controller_telemetry.logs import every_line_with
from lease_sharding.fence import Fence
from lease_sharding.inflight import InFlight
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.line import Priority
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.queue import WorkQueue

logger = logging.getLogger(__name__)


class OwnedWork:
    """The work of the shards that this replica owns; the member's `ShardHandler`. For one event loop."""

    def __init__(
        self,
        *,
        cache: ObjectCache,
        queue: WorkQueue,
        metrics: Metrics,
        distrust: Callable[[], None],
        dropped: Callable[[str], None],
    ) -> None:
        """Own nothing as yet.

        Args:
            cache: tells which objects a shard has.
            queue: where they go when the shard is gained, and leave when it is lost.
            metrics: told how long turns take; forgets the objects of a shard that is lost.
            dropped: told the key of each object of a shard that is lost.
            distrust: called before a shard that is gained is worked on: its last owner may know more than was watched.
        """
        self._cache = cache
        self._queue = queue
        self._metrics = metrics
        self._distrust = distrust
        self._dropped = dropped
        self._fences: dict[int, Fence] = {}
        self._draining: set[int] = set()
        self._running = InFlight()
        self._turns: dict[asyncio.Task[None], int] = {}

    def owns(self, key: str) -> bool:
        """Tell whether a turn of this key may begin here now."""
        shard = self._cache.shard_of(key)
        return shard in self._fences and shard not in self._draining

    async def turn(self, key: str, work: Callable[[Fence], Awaitable[None]]) -> None:
        """Do one key's work under the fence of its shard, until it ends or the shard is lost.

        A key that is not this replica's is dropped: whoever owns its shard has queued it.
        """
        if not self.owns(key):
            self._queue.discard(key)
            return
        shard, started = self._cache.shard_of(key), time.monotonic()
        with self._running.running(shard), every_line_with(shard=shard):
            turn = asyncio.ensure_future(_awaited(work(self._fences[shard])))
            self._turns[turn] = shard
            try:
                await turn
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():  # Not only the turn.
                    raise
                logger.warning("Reconcile was cut off", extra={"object": key, "shard": shard})
            finally:
                del self._turns[turn]
        if shard in self._fences:
            self._metrics.shard_reconcile_duration.labels(str(shard)).observe(time.monotonic() - started)

    # As the member's handler.

    def on_gained(self, shard: int, fence: Fence) -> None:
        """Queue everything in the shard: it has been watched all along, so no event comes."""
        self._fences[shard] = fence
        self._draining.discard(shard)
        self._distrust()
        for key in self._cache.in_shard(shard):
            self._queue.add(key, Priority.RESYNC)

    def on_lost(self, shard: int) -> None:
        """Drop the shard's keys and cut off its turns."""
        self._fences.pop(shard, None)
        self._draining.discard(shard)
        self._drop_keys(shard)
        for turn in [turn for turn, its_shard in self._turns.items() if its_shard == shard]:
            turn.cancel()
        keys = self._cache.in_shard(shard)
        self._metrics.forget_shard(shard, keys)
        for key in keys:
            self._dropped(key)

    async def drain(self, shard: int) -> None:
        """Begin no new turn in the shard, and wait for the end of those under way."""
        if shard in self._fences:
            self._draining.add(shard)
            self._drop_keys(shard)
        await self._running.idle(shard)

    def _drop_keys(self, shard: int) -> None:
        for key in self._cache.in_shard(shard):
            self._queue.discard(key)


async def _awaited(work: Awaitable[None]) -> None:
    await work
