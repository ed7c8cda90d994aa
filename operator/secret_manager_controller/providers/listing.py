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
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.calls import together
from secret_manager_controller.providers.listed import Listed

KEPT_FOR = 90.0
"""Seconds that a listing is kept: objects whose interval of 5 minutes is over take one that is 75 seconds old."""

T = TypeVar("T")
V = TypeVar("V")
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


class _Lately(Generic[V]):
    """What each owner did last, as far back as a listing is kept."""

    def __init__(self) -> None:
        self._noted: OrderedDict[OwnerMark, tuple[float, V]] = OrderedDict()

    def note(self, mark: OwnerMark, what: V, *, now: float) -> None:
        self._noted[mark] = (now, what)
        self._noted.move_to_end(mark)
        while next(iter(self._noted.values()))[0] < now - KEPT_FOR:
            self._noted.popitem(last=False)

    def of(self, mark: OwnerMark, default: V) -> V:
        return self._noted.get(mark, (0.0, default))[1]

    def items(self) -> Iterator[tuple[OwnerMark, V]]:
        return ((mark, what) for mark, (_, what) in self._noted.items())


@dataclass(frozen=True, slots=True)
class _Ask:
    """When an owner asked, and how old a listing was new enough for him.

    Attributes:
        periodic: he asked since his interval was over, so that another like him may ask at any moment.
    """

    at: float
    since: float
    periodic: bool

    def new_enough(self, now: float) -> float:
        """Return since when a listing has to be to serve him, or one like him who asks now."""
        return self.since + (now - self.at) if self.periodic else self.since


class Listing(Generic[T]):
    """Lists what owners have. Whoever asks while a listing is under way shares the next one.

    One who is alone asks for what is his; several ask for all that their cluster has, since one answer costs less quota
    than many. Such an answer is kept for those whom an older one serves, unless it began before they wrote last:
    then it may lack what they wrote. Who needs a newer one than is kept asks for what is his as long as the kept one
    serves the others.

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
        self._asked: _Lately[_Ask] = _Lately()
        self._wrote: _Lately[float] = _Lately()

    async def of(self, mark: OwnerMark, *, since: float | None = None) -> Listed[SecretName, T]:
        """List the secrets that carry a mark's labels, and maybe others' of the same cluster.

        Args:
            mark: whose they are.
            since: a listing that began then or later will do; None asks for one that begins now.
        """
        now, kept = self._clock(), self._kept.get(mark.cluster)
        ask = _Ask(now, now if since is None else since, periodic=not occasion.is_urgent())
        self._asked.note(mark, ask, now=now)
        if since is not None and kept is not None and kept.began >= max(since, self._wrote.of(mark, -math.inf)):
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
                now = self._clock()
                self._wrote.note(mark, now, now=now)

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
            owners = batch.owners | self._unserved(cluster)
            if len(owners) == 1:
                return self._listed(await self._fetch(cluster, next(iter(owners))))
            pages = self._requests(cluster)
            if len(batch.owners) < pages and len(owners) < SERVED * pages:
                listings = await together(self._fetch(cluster, owner) for owner in batch.owners)
                return self._listed([secret for listed in listings for secret in listed])
            began = self._clock()
            listed = self._listed(await self._fetch(cluster, None))
            self._pages[cluster] = math.ceil(len(listed.secrets) / self._page)
            self._keep(cluster, _Kept(began, listed))
            return listed

    def _requests(self, cluster: str) -> int:
        """Return how many requests a listing of all that a cluster has will take, as far as is known.

        The last listing may have been made before most was written; whoever asks has a secret, as a rule.
        """
        asked = sum(mark.cluster == cluster for mark, _ in self._asked.items())
        return max(self._pages.get(cluster, 1), asked // self._page)

    def _unserved(self, cluster: str) -> set[str]:
        """Return those who asked lately and whom the kept listing would not serve now."""
        now, kept = self._clock(), self._kept.get(cluster)
        began = -math.inf if kept is None else kept.began
        return {
            mark.owner for mark, ask in self._asked.items() if mark.cluster == cluster and ask.new_enough(now) > began
        }

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
