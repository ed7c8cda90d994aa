"""Judges a simulated group: what must always hold, and what must hold at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lease_sharding.fence import OwnershipLost, ShardFence


class Violation(AssertionError):  # noqa: N818 - a verdict.
    """Something happened that must never happen."""


@dataclass(slots=True)
class Right:
    """One gain of a shard by a process.

    Attributes:
        number: counts all gains of this shard.
    """

    process: str
    shard: int
    fence: ShardFence
    number: int
    lost: bool = False

    def holds(self) -> bool:
        """Tell whether the process would begin an effect now."""
        try:
            self.fence.check(0)
        except OwnershipLost:
            return False
        return True


class Referee:
    """Watches all processes from outside, by the one true clock."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._rights: dict[int, list[Right]] = {shard: [] for shard in range(shards)}
        self._gains: dict[int, int] = dict.fromkeys(range(shards), 0)
        self.moves = 0
        self.effects = 0
        self.violation: Violation | None = None

    def gained(self, process: str, shard: int, fence: ShardFence) -> Right:
        """Note that a process was told to begin; nobody else may still have the right to act."""
        for other in self._rights[shard]:
            if other.process == process and not other.lost:
                self._blame(f"{process} gained shard {shard} twice without losing it")
            if other.holds():
                self._blame(f"{process} gained shard {shard} while the fence of {other.process} still held")
        self._gains[shard] += 1
        self.moves += 1
        right = Right(process, shard, fence, self._gains[shard])
        self._rights[shard] = [right]
        return right

    def lost(self, right: Right) -> None:
        """Note that a process was told to end."""
        if right.lost:
            self._blame(f"{right.process} lost shard {right.shard} twice")
        if right.holds():
            self._blame(f"{right.process} was told that it lost shard {right.shard} while its fence still held")
        right.lost = True

    def effect(self, right: Right) -> None:
        """Note that an effect, begun behind the fence, reaches the store now."""
        self.effects += 1
        if self._gains[right.shard] != right.number:
            self._blame(f"an effect of {right.process} on shard {right.shard} landed after the next owner began")

    def forget(self, process: str) -> None:
        """Note that a process is dead: it cannot act any more, whatever its fences say."""
        for shard, rights in self._rights.items():
            self._rights[shard] = [right for right in rights if right.process != process]

    def _blame(self, what: str) -> None:
        """Remember the first violation. It is raised from outside: whoever is judged must not be able to catch it."""
        self.violation = self.violation or Violation(what)

    def owners(self) -> Mapping[int, str]:
        """Return who may act for each shard now; two for one shard are a violation."""
        owners: dict[int, str] = {}
        for shard, rights in self._rights.items():
            holding = [right.process for right in rights if right.holds()]
            if len(holding) > 1:
                self._blame(f"{' and '.join(holding)} may act for shard {shard} at one time")
            owners.update(dict.fromkeys([shard] if holding else [], holding[0] if holding else ""))
        return owners

    def unowned(self) -> tuple[int, ...]:
        """Return the shards for which nobody may act now."""
        owners = self.owners()
        return tuple(shard for shard in range(self._shards) if shard not in owners)
