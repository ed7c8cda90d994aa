"""Which owners of stored secrets live."""

from __future__ import annotations

from collections.abc import Collection

from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, KubeClient, KubeError
from secret_manager_controller.model.observed import OwnerMark


class ClusterOwners:
    """Asks the API server for each owner: a cache that is still filling would take a living owner for dead.

    Attributes:
        cluster: the id of this cluster.
    """

    def __init__(self, kube: KubeClient, cluster: str) -> None:
        self._kube = kube
        self.cluster = cluster

    async def living(self, marks: Collection[OwnerMark]) -> frozenset[OwnerMark]:
        """Return those of the marks whose object exists; one of another cluster, or in doubt, counts as living."""
        return frozenset([mark for mark in marks if await self._lives(mark)])

    async def _lives(self, mark: OwnerMark) -> bool:
        namespace, _, name = mark.owner.partition("/")
        if mark.cluster != self.cluster or not name:
            return True
        try:
            return await self._kube.get(SECRET_MANAGER_CONFIGS.url(namespace, name)) is not None
        except KubeError:
            return True
