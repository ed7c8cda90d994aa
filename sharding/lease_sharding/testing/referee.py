"""Judges a simulated group from outside, by the one true clock: what must always hold, and what must hold at rest.

It knows keys, not shards: a group may be started with two shard counts by mistake, and shard 3 of 8 holds the keys of
shards 3 and 11 of 16. A key here is a number, and `key % count` its shard, as `shard_of` makes it of a name's hash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lease_sharding.fence import OwnershipLost, ShardFence


class Violation(AssertionError):  # noqa: N818 - a verdict.
    """Something happened that must never happen."""


@dataclass(slots=True, eq=False)
class Right:
    """One gain of a shard by a process.

    Attributes:
        keys: those of the shard.
    """

    process: str
    shard: int
    keys: tuple[int, ...]
    fence: ShardFence
    lost: bool = False
    forgotten: bool = False

    def holds(self) -> bool:
        """Tell whether the process would begin an effect now."""
        if self.forgotten:
            return False
        try:
            self.fence.check(0)
        except OwnershipLost:
            return False
        return True


@dataclass(slots=True, eq=False)
class Effect:
    """One call to the store, from the check of the fence to the check's margin later, unless it returns before.

    Attributes:
        until: when its time-out ends it at the latest.
    """

    right: Right
    until: float
    returned: bool = False


@dataclass(slots=True)
class _Key:
    rights: list[Right] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    epoch: int | None = 0
    unowned_since: float = 0.0


class Referee:
    """Watches all processes.

    Attributes:
        moves: how often a shard was gained.
        effects: how many effects have begun.
        longest_unowned: seconds for which a key was unowned although it should not have been, at most.
        violation: the first one. It is raised from outside: whoever is judged must not be able to catch it.
    """

    def __init__(self, keys: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys = [_Key(unowned_since=clock()) for _ in range(keys)]
        self.moves = 0
        self.effects = 0
        self.longest_unowned = 0.0
        self.violation: Violation | None = None

    def gained(self, process: str, shard: int, *, of: int, fence: ShardFence) -> Right:
        """Note that a process was told to begin with one of so many shards.

        Nobody else may still have the right to act, no effect of an earlier right may still be under way, and the epoch
        must be higher than all before.
        """
        right = Right(process, shard, tuple(range(shard, len(self._keys), of)), fence)
        for key in right.keys:
            state = self._keys[key]
            for other in state.rights:
                if other.process == process and not other.lost:
                    self._blame(f"{process} gained shard {shard} twice without losing it")
                if other.holds():
                    self._blame(f"{process} gained shard {shard} while the fence of {other.process} still held")
            for effect in self._under_way(state):
                self._blame(f"{process} gained shard {shard} while an effect of {effect.right.process} was under way")
            if state.epoch is not None:
                if fence.epoch <= state.epoch:
                    self._blame(f"{process} gained shard {shard} in epoch {fence.epoch}, after {state.epoch}")
                state.epoch = fence.epoch
            state.rights = [*(other for other in state.rights if not (other.lost or other.forgotten)), right]
        self.moves += 1
        return right

    def lost(self, right: Right) -> None:
        """Note that a process was told to end."""
        if right.lost:
            self._blame(f"{right.process} lost shard {right.shard} twice")
        if right.holds():
            self._blame(f"{right.process} was told that it lost shard {right.shard} while its fence still held")
        right.lost = True

    def begin(self, right: Right, *, margin: float) -> Effect:
        """Note that an effect begins, just after the fence was checked with its time-out as the margin."""
        self.effects += 1
        effect = Effect(right, self._clock() + margin)
        for key in right.keys:
            state = self._keys[key]
            state.effects = [*self._under_way(state), effect]
            if state.rights[-1] is not right:
                self._blame(f"{right.process} began an effect on shard {right.shard} after the next owner did")
        return effect

    def forget(self, process: str) -> None:
        """Note that a process is dead: it begins nothing any more; what it has begun may still arrive."""
        for state in self._keys:
            for right in state.rights:
                right.forgotten = right.forgotten or right.process == process

    def spoil_epochs(self, shard: int, *, of: int) -> None:
        """Note that somebody wrote or deleted a claim by hand: nobody may know its epoch any more."""
        for state in self._keys[shard::of]:
            state.epoch = None

    def owners(self) -> Mapping[int, str]:
        """Return who may act for each key now, and note since when nobody may; two for one key are a violation."""
        owners: dict[int, str] = {}
        for key, state in enumerate(self._keys):
            holding = [right.process for right in state.rights if right.holds()]
            if len(holding) > 1:
                self._blame(f"{' and '.join(holding)} may act for key {key} at one time")
            if holding:
                owners[key] = holding[0]
                state.unowned_since = self._clock()
        return owners

    def judge_unowned(self, *, since: float, bound: float) -> None:
        """Check that no key is unowned for longer than a bound, counted from a time at the earliest."""
        for key, state in enumerate(self._keys):
            seconds = self._clock() - max(state.unowned_since, since)
            self.longest_unowned = max(self.longest_unowned, seconds)
            if seconds > bound:
                self._blame(f"key {key} was unowned for {seconds:.1f} s although a healthy member was there")

    def unowned(self) -> tuple[int, ...]:
        """Return the keys for which nobody may act now."""
        owners = self.owners()
        return tuple(key for key in range(len(self._keys)) if key not in owners)

    def _under_way(self, state: _Key) -> list[Effect]:
        return [effect for effect in state.effects if not effect.returned and self._clock() < effect.until]

    def _blame(self, what: str) -> None:
        self.violation = self.violation or Violation(what)
