"""The API server for the length of one turn: nothing is changed there unless the fence holds."""

from __future__ import annotations

from lease_sharding.fence import Fence
from secret_manager_controller.kube import REQUEST_TIMEOUT, Json, KubeClient


class FencedKube:
    """`KubeClient` for whoever may act on one object only as long as its fence holds.

    Attributes:
        fence: checked before each change; it stands before the store's changes as well.
    """

    def __init__(self, kube: KubeClient, fence: Fence) -> None:
        self._kube = kube
        self.fence = fence

    async def get(self, path: str) -> Json | None:
        """Return one object, or None if there is none."""
        return await self._kube.get(path)

    async def create(self, path: str, body: Json) -> Json:
        """Create an object; see `KubeClient.create`.

        Raises:
            OwnershipLost: the fence does not hold for as long as the request may take; nothing was sent.
        """
        self.fence.check(REQUEST_TIMEOUT)
        return await self._kube.create(path, body)

    async def merge_patch(self, path: str, body: Json) -> Json:
        """Merge-patch an object; see `KubeClient.merge_patch`, and `create` for what else is raised."""
        self.fence.check(REQUEST_TIMEOUT)
        return await self._kube.merge_patch(path, body)
