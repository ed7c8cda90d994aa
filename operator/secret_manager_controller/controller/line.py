"""Who is next: changes before resyncs, and namespaces in turn, so that a noisy one delays only itself."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator, Mapping

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
        self._places: dict[str, tuple[Priority, float]] = {}
        self._turns: Mapping[Priority, OrderedDict[str, OrderedDict[str, None]]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._changes = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def since(self) -> Iterator[tuple[str, float]]:
        """Yield each waiting key with the time since which it waits."""
        return ((key, since) for key, (_, since) in self._places.items())

    def push(self, key: str, priority: Priority, *, now: float) -> None:
        """Let a key wait; one that waits already keeps its time, and takes the better of the two priorities."""
        before, since = self._places.get(key, (None, now))
        if before is not None and before <= priority:
            return
        if before is not None:
            self._leave(key, before)
        self._places[key] = (priority, since)
        self._turns[priority].setdefault(namespace_of(key), OrderedDict())[key] = None

    def pop(self) -> str:
        """Take the key whose turn it is.

        Raises:
            LookupError: none waits.
        """
        priority = self._next_priority()
        turns = self._turns[priority]
        namespace, keys = next(iter(turns.items()))
        key = next(iter(keys))
        self.remove(key)
        if namespace in turns:
            turns.move_to_end(namespace)
        return key

    def remove(self, key: str) -> None:
        """Take a key out, wherever it waits; one that does not wait is fine."""
        if (place := self._places.pop(key, None)) is not None:
            self._leave(key, place[0])

    def _next_priority(self) -> Priority:
        waiting = [priority for priority in Priority if self._turns[priority]]
        if not waiting:
            raise LookupError("no key waits")
        first = waiting[-1] if self._changes >= CHANGES_IN_A_ROW else waiting[0]
        self._changes = self._changes + 1 if first is Priority.CHANGE else 0
        return first

    def _leave(self, key: str, priority: Priority) -> None:
        namespace, turns = namespace_of(key), self._turns[priority]
        del turns[namespace][key]
        if not turns[namespace]:
            del turns[namespace]


def namespace_of(key: str) -> str:
    """Return the namespace of a request key."""
    return key.partition("/")[0]
