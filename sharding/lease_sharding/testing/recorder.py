"""A handler that only remembers what a member told it."""

from __future__ import annotations

from lease_sharding.fence import Fence


class Recorder:
    """Implements `ShardHandler`; its shards have no work, so a drain returns at once.

    Attributes:
        fences: of the shards that were gained and not lost since.
        told: what the member told, in order, such as `("gained", 3)`.
    """

    def __init__(self) -> None:
        self.fences: dict[int, Fence] = {}
        self.told: list[tuple[str, int]] = []

    def on_gained(self, shard: int, fence: Fence) -> None:
        """Remember the fence."""
        self.fences[shard] = fence
        self.told.append(("gained", shard))

    def on_lost(self, shard: int) -> None:
        """Forget the fence."""
        del self.fences[shard]
        self.told.append(("lost", shard))

    async def drain(self, shard: int) -> None:
        """Return at once."""
        self.told.append(("drain", shard))
