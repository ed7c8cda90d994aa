"""Threads for SDKs that block: a few for each kind of store, and none for long for a place that does not answer.

All logins to one kind of store share 32 threads. A place (a region, a project, a vault) takes at most 24 of them, and
one that has stopped answering takes one, now and then, to see whether it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from secret_manager_controller.errors import Reason, RetryableError, foreign

THREADS = 32
"""Requests under way at once for each kind of store, whatever the number of logins: at 50 ms each, 640 a second."""
PLACE_THREADS = 24
"""Requests under way at once for each place: the others are left some."""
SLOW = 1.0
"""Seconds after which a request without an answer holds a thread that others need."""
SLOW_IN_A_ROW = 3
"""So many such requests, and no answer between them, are more than bad luck."""
FIRST_REST, LONGEST_REST = 2.0, 60.0
"""Seconds during which a place that does not answer is not asked again; they double."""
PLACES_REMEMBERED = 1_000

T = TypeVar("T")


class PlaceResting(RetryableError):  # noqa: N818 - it tells a state, which passes.
    """StoreUnavailable, told without a request: the place did not answer the last one."""


class Place:
    """One place that answers requests, or has stopped to. For one event loop.

    Args:
        name: for messages, e.g. `aws eu-central-1`.
        pool: the threads of its kind of store.
        clock: seconds that only grow.
    """

    def __init__(self, name: str, pool: Pool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._pool = pool
        self._clock = clock
        self._slots = asyncio.Semaphore(PLACE_THREADS)
        self._slow = 0
        self._rest = 0.0
        self._rests_until = 0.0
        self._probing = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a request may be made, and let no other one take its thread until the end.

        Raises:
            PlaceResting: the place does not answer at present.
        """
        async with self._slots:
            probe = self._rest > 0.0
            self._check()
            self._probing = self._probing or probe
            try:
                async with self._pool.slots:
                    yield
            finally:
                if probe:
                    self._probing = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin to work in a thread; the caller has a slot."""
        return asyncio.get_running_loop().run_in_executor(self._pool.threads, work)

    def told(self, seconds: float, *, answered: bool) -> None:
        """Note how a request ended."""
        if answered:
            self._slow, self._rest = 0, 0.0
            return
        self._slow += seconds >= SLOW
        if self._slow >= SLOW_IN_A_ROW:
            self._rest = min(self._rest * 2, LONGEST_REST) or FIRST_REST
            self._rests_until = self._clock() + self._rest

    def _check(self) -> None:
        wait = self._rests_until - self._clock()
        if self._rest and (wait > 0.0 or self._probing):
            message = (
                f"{foreign(self._name)} did not answer the last requests; it is asked again in {max(wait, 1.0):.0f} s. "
                "Check its name, the network and the cloud's health page if it lasts"
            )
            raise PlaceResting(Reason.STORE_UNAVAILABLE, message, retry_after=max(wait, 1.0))


class Pool:
    """The threads of one kind of store, and its places."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{kind}-provider")
        # Nothing waits inside the executor, so that no request begins later than its fence was checked.
        self.slots = asyncio.Semaphore(THREADS)
        self._places: OrderedDict[str, Place] = OrderedDict()

    def place(self, name: str) -> Place:
        """Return the place of that name; which places have stopped is remembered for the last ones only."""
        place = self._places.setdefault(name, Place(f"{self._kind} {name}", self))
        self._places.move_to_end(name)
        if len(self._places) > PLACES_REMEMBERED:
            self._places.popitem(last=False)
        return place


_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pool]] = WeakKeyDictionary()
"""By kind of store, for each event loop: in the controller there is one. Threads that are idle end with their loop."""


def place_of(kind: str, name: str) -> Place:
    """Return a place as all logins to it in the running event loop share it."""
    pools = _POOLS.setdefault(asyncio.get_running_loop(), {})
    if kind not in pools:
        pools[kind] = Pool(kind)
    return pools[kind].place(name)
