"""What our owners have in a project: one listing for all objects that ask at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.gcp_marks import filter_of

Fetch = Callable[[str], Awaitable[Sequence[Any]]]
"""Lists the secrets that match a filter, as messages of the API."""


@dataclass(slots=True)
class _Batch:
    """Those who wait for one listing."""

    owners: set[str | None] = field(default_factory=set)
    task: asyncio.Task[Sequence[Any]] | None = None


class Listing:
    """Lists what owners have. Whoever asks while a listing is under way shares the next one.

    So nobody is told what a listing showed that began before he asked: it may lack what he wrote. One who is alone asks
    for what is his; several ask for all that their cluster has, since one answer costs less quota than many.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._waiting: dict[str | None, _Batch] = {}
        self._locks: dict[str | None, asyncio.Lock] = {}

    async def of(self, mark: OwnerMark) -> Sequence[Any]:
        """Return the secrets that carry a mark's labels, and maybe others' of the same cluster."""
        return await self._join(mark.cluster, mark.owner)

    async def everything(self) -> Sequence[Any]:
        """Return all secrets of the project, whoever has them."""
        return await self._join(None, None)

    async def aclose(self) -> None:
        """End the listings that wait."""
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
            owner = next(iter(batch.owners)) if len(batch.owners) == 1 else None
            return await self._fetch(filter_of(cluster, owner))


def _retrieve(task: asyncio.Task[Sequence[Any]]) -> None:
    """Look at a failure, so that one whose callers were all cancelled is no unseen one."""
    if not task.cancelled():
        task.exception()
