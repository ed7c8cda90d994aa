"""The sweep: compare what is remembered with what exists, since a gap in the watch hides deletions.

After a gap (HTTP 410, a restart of the API server) kopf lists again, and what was deleted meanwhile gives no event.
A metadata-only listing finds it: 0.3 s for 10,000 objects.
"""

from __future__ import annotations

import asyncio
import logging

from secret_manager_controller.controller.dispatch import Dispatcher
from secret_manager_controller.controller.watched_sources import SOURCE_PATHS
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, KubeClient, KubeError, ResourcePath

logger = logging.getLogger(__name__)

CATCH_UP_INTERVAL = 1.0
"""Seconds between two looks while the first listing comes in."""


class KindInstalled(Exception):  # noqa: N818 - it tells an event.
    """A kind exists that did not when the watches were opened; only a restart watches it."""


class Sweeper:
    """Sweeps on an interval; the first sweeps also tell when the cache has caught up with the cluster."""

    def __init__(self, kube: KubeClient, dispatcher: Dispatcher) -> None:
        self._kube = kube
        self._dispatcher = dispatcher
        self._absent: set[ResourcePath] = set()
        self.caught_up = False

    async def run(self, interval: float, *, started: asyncio.Event) -> None:
        """Sweep until cancelled.

        Args:
            interval: seconds between two sweeps once the cache has caught up.
            started: set when the watches are being opened.

        Raises:
            KindInstalled: the process should restart.
        """
        await started.wait()
        while True:
            try:
                missed = await self.sweep()
                if missed and self.caught_up:
                    logger.info("Sweep found what the watch missed", extra={"count": missed})
                self.caught_up = self.caught_up or not missed
            except KubeError as error:
                logger.warning("Sweep failed", extra={"status": error.status, "error": error.message})
            await asyncio.sleep(interval if self.caught_up else CATCH_UP_INTERVAL)

    async def sweep(self) -> int:
        """Compare once; queue what was missed and return how much that was.

        Raises:
            KindInstalled: see `run`.
            KubeError: the API server refused or did not answer.
        """
        existing = {f"{ns}/{name}" for ns, name in await self._list(SECRET_MANAGER_CONFIGS)}
        missed = self._dispatcher.sweep_objects(existing, listed=self.caught_up)
        for kind, path in SOURCE_PATHS.items():
            missed += self._dispatcher.sweep_sources(kind, await self._list(path))
        return missed

    async def _list(self, resource: ResourcePath) -> frozenset[tuple[str, str]]:
        try:
            found = frozenset([(m["namespace"], m["name"]) async for m in self._kube.list_metadata(resource)])
        except KubeError as error:
            if error.status != 404:
                raise
            self._absent.add(resource)  # The kind is not installed, so none of it exists.
            return frozenset()
        if resource in self._absent:
            raise KindInstalled(f"{resource.plural}.{resource.group} was installed, and is watched after a restart")
        return found
