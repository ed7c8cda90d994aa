"""What our owners have in a store: one listing for all objects that ask at a time, or whom an earlier one serves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.calls import together

KEPT_FOR = 90.0
"""Seconds that a listing is kept: objects whose interval of 5 minutes is over take one that is 75 seconds old."""

T = TypeVar("T")
SERVED = 4
"""A listing serves one in so many of those who ask while it is kept: it may be a quarter of their interval old."""

Fetch = Callable[[str | None, str | None], Coroutine[Any, Any, Sequence[T]]]
"""Lists what an owner in a cluster has, what all owners in a cluster have (no owner), or all secrets (no cluster)."""


@dataclass(slots=True)
class _Batch(Generic[T]):
    """Those who wait for one listing."""

    owners: set[str | None] = field(default_factory=set)
    task: asyncio.Task[Sequence[T]] | None = None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """A listing of all that a cluster has, and when it began."""

    began: float
    secrets: Sequence[T]


class Listing(Generic[T]):
    """Lists what owners have. Whoever asks while a listing is under way shares the next one.

    One who is alone asks for what is his; several ask for all that their cluster has, since one answer costs less quota
    than many. Such an answer is kept for those whom an older one serves, unless it began before they wrote last:
    then it may lack what they wrote.

    Args:
        fetch: makes a listing.
        page: how many secrets one request lists. Where all that a cluster has takes more requests than a listing saves,
            each owner gets one of his own.
        clock: seconds that only grow; `since` is told by it.
    """

    def __init__(self, fetch: Fetch[T], *, page: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._page = page
        self._clock = clock
        self._pages: dict[str, int] = {}
        self._waiting: dict[str | None, _Batch[T]] = {}
        self._locks: dict[str | None, asyncio.Lock] = {}
        self._kept: dict[str, _Kept[T]] = {}
        self._drops: dict[str, asyncio.TimerHandle] = {}
        # When each owner asked and wrote last, as far back as a listing is kept.
        self._asked: dict[OwnerMark, float] = {}
        self._wrote: dict[OwnerMark, float] = {}

    async def of(self, mark: OwnerMark, *, since: float | None = None) -> Sequence[T]:
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

    async def everything(self) -> Sequence[T]:
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

    async def _join(self, cluster: str | None, owner: str | None) -> Sequence[T]:
        batch = self._waiting.setdefault(cluster, _Batch())
        batch.owners.add(owner)
        if batch.task is None:
            batch.task = asyncio.create_task(self._run(cluster, batch))
            batch.task.add_done_callback(_retrieve)
        # Whoever is cancelled leaves the others their listing.
        return await asyncio.shield(batch.task)

    async def _run(self, cluster: str | None, batch: _Batch[T]) -> Sequence[T]:
        async with self._locks.setdefault(cluster, asyncio.Lock()):
            # From here on, whoever asks is of the next batch.
            del self._waiting[cluster]
            if cluster is None:
                return await self._fetch(None, None)
            owners = batch.owners | {mark.owner for mark in self._asked if mark.cluster == cluster}
            if len(owners) == 1:
                return await self._fetch(cluster, next(iter(owners)))
            pages = self._pages.get(cluster, 1)
            if len(batch.owners) < pages and len(owners) < SERVED * pages:
                listings = await together(self._fetch(cluster, owner) for owner in batch.owners)
                return [secret for listed in listings for secret in listed]
            began = self._clock()
            secrets = await self._fetch(cluster, None)
            self._pages[cluster] = math.ceil(len(secrets) / self._page)
            self._keep(cluster, _Kept(began, secrets))
            return secrets

    def _keep(self, cluster: str, kept: _Kept[T]) -> None:
        self._kept[cluster] = kept
        if cluster in self._drops:
            self._drops[cluster].cancel()
        # It may be some MB.
        self._drops[cluster] = asyncio.get_running_loop().call_later(KEPT_FOR, self._kept.pop, cluster, None)


def _recent(times: Mapping[OwnerMark, float], now: float) -> dict[OwnerMark, float]:
    return {owner: at for owner, at in times.items() if at >= now - KEPT_FOR}


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at a failure, so that one whose callers were all cancelled is no unseen one."""
    if not task.cancelled():
        task.exception()
