"""Who is next: changes before resyncs, and namespaces in turn, so that a noisy one delays only itself.

Keys of one lane, which is a store's account, share what can go wrong there. A lane may be full: then its keys wait, and
the others' do not.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping

CHANGES_IN_A_ROW = 9
"""After so many changes one resync goes first if any waits: a steady stream of changes must not end drift repair."""


class Priority(enum.IntEnum):
    """Why a key waits; the lower goes first."""

    CHANGE = 0
    """Somebody changed the object, its source, or asked for it."""
    RESYNC = 1
    """The interval, a retry, or a shard that was gained: nobody waits for this one object."""


class WaitingLine:
    """Keys that wait, each once."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Priority, float, str]] = {}
        # Keys by whose turn it is: a namespace's in one lane.
        self._turns: Mapping[Priority, OrderedDict[tuple[str, str], OrderedDict[str, None]]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._changes = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def since(self) -> Iterator[tuple[str, float]]:
        """Yield each waiting key with the time since which it waits."""
        return ((key, since) for key, (_, since, _) in self._places.items())

    def push(self, key: str, priority: Priority, *, now: float, lane: str = "") -> None:
        """Let a key wait; one that waits already keeps its time, and takes the better of the two priorities."""
        before, since, at = self._places.get(key, (None, now, lane))
        if before is not None and before <= priority:
            return
        if before is not None:
            self._leave(key, before, at)
        self._places[key] = (priority, since, lane)
        self._turns[priority].setdefault((namespace_of(key), lane), OrderedDict())[key] = None

    def pop(self, full: Container[str] = ()) -> tuple[str, str]:
        """Take the key whose turn it is; return it and its lane.

        Args:
            full: lanes whose keys go on waiting.

        Raises:
            LookupError: none waits in another lane.
        """
        priority, turn = self._next(full)
        turns = self._turns[priority]
        key = next(iter(turns[turn]))
        self.remove(key)
        if turn in turns:
            turns.move_to_end(turn)
        return key, turn[1]

    def remove(self, key: str) -> None:
        """Take a key out, wherever it waits; one that does not wait is fine."""
        if (place := self._places.pop(key, None)) is not None:
            self._leave(key, place[0], place[2])

    def _next(self, full: Container[str]) -> tuple[Priority, tuple[str, str]]:
        heads = {
            priority: turn
            for priority, turns in self._turns.items()
            if (turn := next((turn for turn in turns if turn[1] not in full), None)) is not None
        }
        if not heads:
            raise LookupError("no key waits")
        first = max(heads) if self._changes >= CHANGES_IN_A_ROW else min(heads)
        self._changes = self._changes + 1 if first is Priority.CHANGE else 0
        return first, heads[first]

    def _leave(self, key: str, priority: Priority, lane: str) -> None:
        turn, turns = (namespace_of(key), lane), self._turns[priority]
        del turns[turn][key]
        if not turns[turn]:
            del turns[turn]


def namespace_of(key: str) -> str:
    """Return the namespace of a request key."""
    return key.partition("/")[0]
