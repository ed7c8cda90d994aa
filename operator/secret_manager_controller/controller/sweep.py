"""The sweep: compare what is remembered with what exists, since a gap in the watch hides deletions.

After a gap (HTTP 410, a restart of the API server) kopf lists again, and what was deleted meanwhile gives no event.
A metadata-only listing finds it: 0.3 s for 10,000 objects. It also finds what was changed behind a watch that hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from secret_manager_controller.controller.copies import key_of, version_of
from secret_manager_controller.controller.dispatch import Dispatcher
from secret_manager_controller.controller.kinds import Kinds, served_kinds
from secret_manager_controller.controller.policies import PolicyBook
from secret_manager_controller.kube import (
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    KubeClient,
    KubeError,
    ResourcePath,
)

logger = logging.getLogger(__name__)

CATCH_UP_INTERVAL = 0.1
"""Seconds between two looks at whether the watch has shown what was listed."""
CATCH_UP_PATIENCE = 10.0
"""Seconds after which it is listed anew: what was deleted meanwhile will not be shown."""
RETRY_INTERVAL = 1.0
"""Seconds until a first listing that failed, or found what is gone, is made anew."""


class KindInstalled(Exception):  # noqa: N818 - it tells an event.
    """A kind is served that was not, or elsewhere than when the watches were opened; only a restart watches it."""


class Sweeper:
    """Sweeps on an interval; the first sweeps also tell when the cache has caught up with the cluster.

    Args:
        kube: the API server.
        dispatcher: told what the watch missed.
        kinds: the kinds of sources that are watched, and where.
        policies: the policies, where they are watched too.
    """

    def __init__(
        self, kube: KubeClient, dispatcher: Dispatcher, kinds: Kinds, policies: PolicyBook | None = None
    ) -> None:
        self._kube = kube
        self._dispatcher = dispatcher
        self._watched = dict(kinds)
        self._policies = policies
        self._unseen: Collection[str] = ()
        self.caught_up = asyncio.Event()

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
                if missed and self.caught_up.is_set():
                    logger.info("Sweep found what the watch missed", extra={"count": missed})
                if not missed:
                    self.caught_up.set()
            except KubeError as error:
                logger.warning("Sweep failed", extra={"status": error.status, "error": error.message})
            await (asyncio.sleep(interval) if self.caught_up.is_set() else self._shown())

    async def sweep(self) -> int:
        """Compare once; queue what was missed and return how much that was.

        Raises:
            KindInstalled: see `run`.
            KubeError: the API server refused or did not answer.
        """
        existing = {
            key_of(metadata): version_of(metadata)  # No more: it would be 10 KB an object.
            async for metadata in self._kube.list_metadata(SECRET_MANAGER_CONFIGS)
        }
        missed = self._dispatcher.sweep_objects(existing, listed=self.caught_up.is_set())
        self._unseen = self._dispatcher.unseen(existing)
        served = await served_kinds(self._kube)
        for kind, path in served.items():
            if self._watched.get(kind) != path:
                how = f"is served in {path.version} now" if kind in self._watched else "was installed or granted"
                raise KindInstalled(f"{path.plural}.{path.group} {how}, and is watched after a restart")
        for kind in tuple(self._watched):
            if kind in served:
                missed += self._dispatcher.sweep_sources(kind, await self._list(served[kind]))
            else:  # The kind was uninstalled, and all of it is gone; a new one needs a new watch.
                del self._watched[kind]
                missed += self._dispatcher.forget_kind(kind)
        return missed + (0 if self._policies is None else await self._sweep_policies(self._policies))

    async def _sweep_policies(self, policies: PolicyBook) -> int:
        existing = {metadata["name"] async for metadata in self._kube.list_metadata(SECRET_MANAGER_POLICIES)}
        gone = 0
        for name in policies.ghosts(existing):
            # Made after the listing, it would be forgotten for good: the watch has told of it already.
            if await self._kube.get(SECRET_MANAGER_POLICIES.url(name=name)) is None:
                self._dispatcher.forget_policy(name)
                gone += 1
        return gone

    async def _shown(self) -> None:
        """Wait until the watch has shown what was listed, for some time."""
        if not self._unseen:
            await asyncio.sleep(RETRY_INTERVAL)
            return
        patience = asyncio.get_running_loop().time() + CATCH_UP_PATIENCE
        while self._unseen and asyncio.get_running_loop().time() < patience:
            await asyncio.sleep(CATCH_UP_INTERVAL)
            self._unseen = self._dispatcher.unseen(self._unseen)

    async def _list(self, resource: ResourcePath) -> dict[tuple[str, str], int | None]:
        return {(m["namespace"], m["name"]): version_of(m) async for m in self._kube.list_metadata(resource)}
