"""What our owners have in a project: one listing for all objects that ask at a time, or whom an earlier one serves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.gcp_marks import filter_of

KEPT_FOR = 90.0
"""Seconds that a listing is kept: objects whose interval of 5 minutes is over take one that is 75 seconds old."""

Fetch = Callable[[str], Awaitable[Sequence[Any]]]
"""Lists the secrets that match a filter, as messages of the API."""


@dataclass(slots=True)
class _Batch:
    """Those who wait for one listing."""

    owners: set[str | None] = field(default_factory=set)
    task: asyncio.Task[Sequence[Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A listing of all that a cluster has, and when it began."""

    began: float
    secrets: Sequence[Any]


class Listing:
    """Lists what owners have. Whoever asks while a listing is under way shares the next one.

    One who is alone asks for what is his; several ask for all that their cluster has, since one answer costs less quota
    than many. Such an answer is kept for those whom an older one serves, unless it began before they wrote last:
    then it may lack what they wrote.

    Args:
        fetch: makes a listing.
        clock: seconds that only grow; `since` is told by it.
    """

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._waiting: dict[str | None, _Batch] = {}
        self._locks: dict[str | None, asyncio.Lock] = {}
        self._kept: dict[str, _Kept] = {}
        self._drops: dict[str, asyncio.TimerHandle] = {}
        # When each owner asked and wrote last, as far back as a listing is kept.
        self._asked: dict[OwnerMark, float] = {}
        self._wrote: dict[OwnerMark, float] = {}

    async def of(self, mark: OwnerMark, *, since: float | None = None) -> Sequence[Any]:
        """Return the secrets that carry a mark's labels, and maybe others' of the same cluster.

        Args:
            mark: whose they are.
            since: a listing that began then or later will do; None asks for one that begins now.
        """
        now, kept = self._clock(), self._kept.get(mark.cluster)
        self._asked = _recent(self._asked, now) | {mark: now}
        if since is not None and kept is not None and kept.began >= max(since, self._wrote.get(mark, -math.inf)):
            return kept.secrets
        return await self._join(mark.cluster, mark.owner)

    async def everything(self) -> Sequence[Any]:
        """Return all secrets of the project, whoever has them."""
        return await self._join(None, None)

    @contextlib.contextmanager
    def written(self, mark: OwnerMark | None) -> Iterator[None]:
        """Note that an owner writes while this lasts: no listing that began before its end serves him."""
        try:
            yield
        finally:
            if mark is not None:
                now = self._clock()
                self._wrote = _recent(self._wrote, now) | {mark: now}

    def forget(self) -> None:
        """Let no listing serve any more that has begun: somebody else changed what it shows."""
        self._kept.clear()

    async def aclose(self) -> None:
        """End the listings that wait."""
        for drop in self._drops.values():
            drop.cancel()
        tasks = [batch.task for batch in self._waiting.values() if batch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _join(self, cluster: str | None, owner: str | None) -> Sequence[Any]:
        batch = self._waiting.setdefault(cluster, _Batch())
        batch.owners.add(owner)
        if batch.task is None:
            batch.task = asyncio.create_task(self._run(cluster, batch))
            batch.task.add_done_callback(_retrieve)
        # Whoever is cancelled leaves the others their listing.
        return await asyncio.shield(batch.task)

    async def _run(self, cluster: str | None, batch: _Batch) -> Sequence[Any]:
        async with self._locks.setdefault(cluster, asyncio.Lock()):
            # From here on, whoever asks is of the next batch.
            del self._waiting[cluster]
            if cluster is None:
                return await self._fetch("")
            owners = batch.owners | {mark.owner for mark in self._asked if mark.cluster == cluster}
            if len(owners) == 1:
                return await self._fetch(filter_of(cluster, next(iter(owners))))
            began = self._clock()
            secrets = await self._fetch(filter_of(cluster, None))
            self._keep(cluster, _Kept(began, secrets))
            return secrets

    def _keep(self, cluster: str, kept: _Kept) -> None:
        self._kept[cluster] = kept
        if cluster in self._drops:
            self._drops[cluster].cancel()
        # It may be some MB.
        self._drops[cluster] = asyncio.get_running_loop().call_later(KEPT_FOR, self._kept.pop, cluster, None)


def _recent(times: Mapping[OwnerMark, float], now: float) -> dict[OwnerMark, float]:
    return {owner: at for owner, at in times.items() if at >= now - KEPT_FOR}


def _retrieve(task: asyncio.Task[Sequence[Any]]) -> None:
    """Look at a failure, so that one whose callers were all cancelled is no unseen one."""
    if not task.cancelled():
        task.exception()
