"""What our owners have in a store: one listing for all objects that ask at a time, or whom an earlier one serves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers.calls import together
from secret_manager_controller.providers.listed import Listed

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
    task: asyncio.Task[Listed[SecretName, T]] | None = None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """A listing of all that a cluster has, and when it began."""

    began: float
    listed: Listed[SecretName, T]


class _Times:
    """When each owner did something last, as far back as a listing is kept."""

    def __init__(self) -> None:
        self._times: OrderedDict[OwnerMark, float] = OrderedDict()

    def note(self, mark: OwnerMark, now: float) -> None:
        self._times[mark] = now
        self._times.move_to_end(mark)
        while self._times and next(iter(self._times.values())) < now - KEPT_FOR:
            self._times.popitem(last=False)

    def of(self, mark: OwnerMark) -> float:
        return self._times.get(mark, -math.inf)

    def owners(self, cluster: str) -> set[str]:
        return {mark.owner for mark in self._times if mark.cluster == cluster}


class Listing(Generic[T]):
    """Lists what owners have. Whoever asks while a listing is under way shares the next one.

    One who is alone asks for what is his; several ask for all that their cluster has, since one answer costs less quota
    than many. Such an answer is kept for those whom an older one serves, unless it began before they wrote last:
    then it may lack what they wrote.

    Args:
        fetch: makes a listing.
        name_of: tells a secret's name.
        mark_of: tells its mark, None of one without.
        page: how many secrets one request lists. Where all that a cluster has takes more requests than a listing saves,
            each owner gets one of his own.
        clock: seconds that only grow; `since` is told by it.
    """

    def __init__(
        self,
        fetch: Fetch[T],
        *,
        name_of: Callable[[T], SecretName],
        mark_of: Callable[[T], OwnerMark | None],
        page: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._listed = functools.partial(Listed[SecretName, T], name_of=name_of, mark_of=mark_of)
        self._page = page
        self._clock = clock
        self._pages: dict[str, int] = {}
        self._waiting: dict[str | None, _Batch[T]] = {}
        self._locks: dict[str | None, asyncio.Lock] = {}
        self._kept: dict[str, _Kept[T]] = {}
        self._drops: dict[str, asyncio.TimerHandle] = {}
        self._asked, self._wrote = _Times(), _Times()

    async def of(self, mark: OwnerMark, *, since: float | None = None) -> Listed[SecretName, T]:
        """List the secrets that carry a mark's labels, and maybe others' of the same cluster.

        Args:
            mark: whose they are.
            since: a listing that began then or later will do; None asks for one that begins now.
        """
        now, kept = self._clock(), self._kept.get(mark.cluster)
        self._asked.note(mark, now)
        if since is not None and kept is not None and kept.began >= max(since, self._wrote.of(mark)):
            return kept.listed
        return await self._join(mark.cluster, mark.owner)

    async def everything(self) -> Sequence[T]:
        """Return all secrets of the project, whoever has them."""
        return (await self._join(None, None)).secrets

    @contextlib.contextmanager
    def written(self, mark: OwnerMark | None) -> Iterator[None]:
        """Note that an owner writes while this lasts: no listing that began before its end serves him."""
        try:
            yield
        finally:
            if mark is not None:
                self._wrote.note(mark, self._clock())

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

    async def _join(self, cluster: str | None, owner: str | None) -> Listed[SecretName, T]:
        batch = self._waiting.setdefault(cluster, _Batch())
        batch.owners.add(owner)
        if batch.task is None:
            batch.task = asyncio.create_task(self._run(cluster, batch))
            batch.task.add_done_callback(_retrieve)
        # Whoever is cancelled leaves the others their listing.
        return await asyncio.shield(batch.task)

    async def _run(self, cluster: str | None, batch: _Batch[T]) -> Listed[SecretName, T]:
        async with self._locks.setdefault(cluster, asyncio.Lock()):
            # From here on, whoever asks is of the next batch.
            del self._waiting[cluster]
            if cluster is None:
                return self._listed(await self._fetch(None, None))
            owners = batch.owners | self._asked.owners(cluster)
            if len(owners) == 1:
                return self._listed(await self._fetch(cluster, next(iter(owners))))
            pages = self._pages.get(cluster, 1)
            if len(batch.owners) < pages and len(owners) < SERVED * pages:
                listings = await together(self._fetch(cluster, owner) for owner in batch.owners)
                return self._listed([secret for listed in listings for secret in listed])
            began = self._clock()
            listed = self._listed(await self._fetch(cluster, None))
            self._pages[cluster] = math.ceil(len(listed.secrets) / self._page)
            self._keep(cluster, _Kept(began, listed))
            return listed

    def _keep(self, cluster: str, kept: _Kept[T]) -> None:
        self._kept[cluster] = kept
        if cluster in self._drops:
            self._drops[cluster].cancel()
        # It may be some MB.
        self._drops[cluster] = asyncio.get_running_loop().call_later(KEPT_FOR, self._kept.pop, cluster, None)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at a failure, so that one whose callers were all cancelled is no unseen one."""
    if not task.cancelled():
        task.exception()
