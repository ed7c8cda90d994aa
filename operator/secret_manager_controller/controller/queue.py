"""The work queue: deduplicating, one worker a key, delayed requeue, backoff with jitter.

The semantics are those of client-go's workqueue: a key that is added while it is being worked on is handed out once
more after `done`, and any number of adds in between is one. Whose turn it is, `line` decides. Time is an argument of
the constructor.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from secret_manager_controller.controller.line import Priority, WaitingLine

BACKOFF_BASE = 1.0
BACKOFF_CAP = 300.0
"""Seconds of the first retry and of the longest; it doubles in between."""
BACKOFF_JITTER = 0.2
"""Each delay is shortened or lengthened by up to this share, so that failures that came together part."""


def backoff(failures: int, *, spread: float) -> float:
    """Return the delay in seconds before retry number `failures` (from 1); `spread` in -1…1 picks the jitter."""
    delay = min(BACKOFF_BASE * 2.0 ** min(failures - 1, 32), BACKOFF_CAP)
    return delay * (1 + BACKOFF_JITTER * spread)


@dataclass(frozen=True, slots=True)
class Widths:
    """How many keys are handed out at a time. With fewer than there are workers, what does not answer leaves some.

    Attributes:
        lane: of one lane: a store's account.
        kind: of all lanes whose names begin alike, up to the first `/`: a kind of store.
    """

    lane: float = math.inf
    kind: float = math.inf


@dataclass(frozen=True, slots=True)
class _Full:
    """The lanes from which nothing is handed out now."""

    lanes: Collection[str]
    kinds: Collection[str]

    def __contains__(self, lane: object) -> bool:
        return lane in self.lanes or _kind_of(str(lane)) in self.kinds


class QueueClosed(Exception):  # noqa: N818 - it tells an event, not a fault.
    """The queue hands out no more keys."""


class WorkQueue:
    """A queue of request keys for one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        spread: Callable[[], float] | None = None,
        lane_of: Callable[[str], str] = lambda _: "",
        widths: Widths = Widths(),
    ) -> None:
        """Make an empty queue.

        Args:
            clock: monotonic seconds; the loop's `time` in the controller.
            spread: a random number in -1…1 for each backoff.
            lane_of: tells which store's account a key needs; "" is not known.
            widths: how many keys that need the same account, and the same kind of store, are handed out at a time.
        """
        self._clock = clock
        self._spread = spread or (lambda: random.uniform(-1, 1))  # noqa: S311 - jitter is no secret.
        self._waiting = WaitingLine()
        self._working: dict[str, str] = {}
        self._busy: Counter[str] = Counter()
        self._lane_of = lane_of
        self._widths = widths
        self._busy_kinds: Counter[str] = Counter()
        self._asked: dict[str, float] = {}
        """When somebody asked for a key that waits, last; none where nobody did."""
        self._new_enough: dict[str, float] = {}
        """The same of keys that are being worked on."""
        self._again: dict[str, Priority] = {}
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Hand out no more keys: every `get`, waiting ones too, raises `QueueClosed`."""
        self._closed = True
        self._changed.set()

    def __len__(self) -> int:
        """Return how many keys wait to be worked on now, delayed ones not counted."""
        return len(self._waiting)

    def waiting(self) -> Iterator[tuple[str, float]]:
        """Yield each key that waits to be worked on now, with the seconds that it has waited."""
        now = self._clock()
        return ((key, now - since) for key, since in self._waiting.since())

    def add(self, key: str, priority: Priority = Priority.CHANGE) -> None:
        """Queue a key now; a delayed requeue of it is then void."""
        self._asked[key] = self._clock()
        self._add(key, priority)

    def add_after(self, key: str, delay: float) -> None:
        """Queue a key after `delay` seconds; void if it is handed out sooner, and the last call counts."""
        due = self._clock() + delay
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def retry(self, key: str, *, at_least: float | None = None) -> float:
        """Queue a key after its next backoff, or after `at_least` seconds if that is longer; return the delay."""
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        delay = max(backoff(failures, spread=self._spread()), at_least or 0.0)
        self.add_after(key, delay)
        return delay

    def new_enough(self, key: str, *, slack: float) -> float:
        """Return since when a look at the store is new enough for a key that is being worked on.

        It is when somebody asked for the key last, or its retry was due. Where nobody asked, since its interval is
        over, it is `slack` seconds ago: objects on one store that come round by and by can share a look.
        """
        asked = self._new_enough.get(key)
        return self._clock() - slack if asked is None else asked

    def succeeded(self, key: str) -> None:
        """Start the key's backoff anew."""
        self._failures.pop(key, None)

    def discard(self, key: str) -> None:
        """Forget a key that is gone or not ours any more."""
        self._waiting.remove(key)
        self._again.pop(key, None)
        self._asked.pop(key, None)
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def get(self) -> str:
        """Wait for a key and take it; `done` gives it back.

        Raises:
            QueueClosed: the queue was closed.
        """
        while True:
            if self._closed:
                raise QueueClosed
            self._promote()
            if (key := self._take()) is not None:
                return key
            await self._wait()

    def done(self, key: str) -> None:
        """Give a key back; if it was added meanwhile it is queued again."""
        lane = self._working.pop(key, "")
        self._new_enough.pop(key, None)
        for busy, name in ((self._busy, lane), (self._busy_kinds, _kind_of(lane))):
            busy[name] -= 1
            if busy[name] <= 0:
                del busy[name]
        self._changed.set()
        if (priority := self._again.pop(key, None)) is not None:
            self.add(key, priority)

    def _add(self, key: str, priority: Priority) -> None:
        self._due.pop(key, None)
        if key in self._working:
            self._again[key] = min(priority, self._again.get(key, priority))
        else:
            self._waiting.push(key, priority, now=self._clock(), lane=self._lane_of(key))
            self._changed.set()

    def _take(self) -> str | None:
        full = _Full(_at_least(self._widths.lane, self._busy), _at_least(self._widths.kind, self._busy_kinds))
        try:
            key, lane = self._waiting.pop(full)
        except LookupError:
            return None
        self._due.pop(key, None)
        self._working[key] = lane
        if (asked := self._asked.pop(key, None)) is not None:
            self._new_enough[key] = asked
        self._busy[lane] += 1
        self._busy_kinds[_kind_of(lane)] += 1
        return key

    def _promote(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:  # Else it was superseded.
                if key in self._failures:
                    self._asked[key] = now
                self._add(key, Priority.RESYNC)

    async def _wait(self) -> None:
        self._changed.clear()
        timeout = max(self._heap[0][0] - self._clock(), 0.0) if self._heap else None
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return


def _kind_of(lane: str) -> str:
    return lane.partition("/")[0]


def _at_least(width: float, busy: Mapping[str, int]) -> frozenset[str]:
    """Return what has so many; what has no name is not known, and has no bound."""
    return frozenset(name for name, count in busy.items() if name and count >= width)
