"""Requests to a store: in threads, one at a time each, bounded in time, tried again where that may help, and counted.

What is the same for every store whose SDK blocks. A provider's own module makes the single request and turns the SDK's
errors into refusals.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
from opentelemetry.trace import StatusCode

from lease_sharding.fence import Fence
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.protocol import CallObserver
from secret_manager_controller.providers.threads import Place, place_of
from secret_manager_controller.tracing import Attribute, step, told

REQUEST_TIMEOUT = 6.0
"""Seconds that one request takes at most: the fence must hold for that long when it begins."""
_LONGEST_HINT = 3600.0  # Seconds; a wish to wait for longer than an hour is not believed.

T = TypeVar("T")


class Refusal(abc.ABC):
    """An answer that is an error, or no answer at all: a value, since an SDK's exception may quote what was sent.

    Attributes:
        code: the store's error code, or the type of the connection's failure; it becomes a metric label.
        retry_after: seconds that the store asks to wait.
    """

    __slots__ = ()

    code: str
    retry_after: float | None

    @property
    @abc.abstractmethod
    def passing(self) -> bool:
        """Whether the same request may succeed soon."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is made.

    Attributes:
        attempts: how many times at most.
        total: seconds after which no attempt may still be under way: one that timed out is made once more.
        first_wait: seconds before the second attempt, plus jitter; it doubles with each.
        longest_wait: seconds between two attempts at most. The store's own wish may be longer.
    """

    attempts: int = 3
    total: float = 2 * REQUEST_TIMEOUT + 1.0
    first_wait: float = 0.2
    longest_wait: float = 3.0


class Requests:
    """Makes the requests of one login. Safe for concurrent use on one event loop.

    Args:
        provider: the store's name for the observer, e.g. `aws`; all logins to one kind of store share its threads.
        place: what answers, e.g. a region or a vault: if it stops, only its own requests wait.
        on_call: told of every request, retries included.
        retries: how often a request is made.
    """

    def __init__(self, provider: str, *, place: str, on_call: CallObserver, retries: RetryPolicy) -> None:
        self._provider = provider
        self._place_name = place
        self._on_call = on_call
        self._retries = retries
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def attempt(
        self,
        operation: str,
        ask: Callable[[], T],
        *,
        fence: Fence | None = None,
        before: Callable[[int], Awaitable[T | None]] | None = None,
        again: Callable[[Refusal], bool] = lambda refusal: refusal.passing,
    ) -> T:
        """Make a request, again if that may help, and return the last outcome.

        Args:
            operation: the API's name of the request.
            ask: makes the request once and returns the answer or a `Refusal`. It runs in a thread and ends within
                `REQUEST_TIMEOUT`.
            fence: checked right before each attempt; for requests that change something.
            before: awaited before each attempt with its number, from 1; an outcome that it returns stands for one of
                the attempt, which is not made then.
            again: whether a refused request is made once more.

        Raises:
            OwnershipLost: the fence closed; nothing was sent since.
        """
        numbers, made = itertools.count(1), itertools.count(1)
        started = time.monotonic()

        async def once() -> T:
            if before is not None and (outcome := await before(next(numbers))) is not None:
                return outcome
            asked = {Attribute.PROVIDER: self._provider, Attribute.OPERATION: operation}
            with step(f"{self._provider} {operation}", asked | {Attribute.ATTEMPT: next(made)}) as span:
                outcome = await self._once(operation, ask, fence)
                told(span, {Attribute.CODE: outcome.code if isinstance(outcome, Refusal) else "OK"})
                if isinstance(outcome, Refusal):
                    span.set_status(StatusCode.ERROR)
                return outcome

        outcome = await once()
        if not isinstance(outcome, Refusal):
            return outcome  # Nearly all: tenacity would cost these a twentieth more.
        first: list[T] = [outcome]

        async def attempt() -> T:
            return first.pop() if first else await once()

        return await self._again(attempt, again, started=started)

    async def _again(
        self, attempt: Callable[[], Awaitable[T]], again: Callable[[Refusal], bool], *, started: float
    ) -> T:
        """Make attempts as long as they may help, and return the last outcome; the first attempt was refused."""
        first, longest = self._retries.first_wait, self._retries.longest_wait
        backoff = tenacity.wait_exponential(multiplier=first, max=longest) + tenacity.wait_random(0, first)

        def wait(state: tenacity.RetryCallState) -> float:
            return max(backoff(state), _refusal(state).retry_after or 0.0)

        def stop(state: tenacity.RetryCallState) -> bool:
            ends = time.monotonic() - started + state.upcoming_sleep + REQUEST_TIMEOUT
            return state.attempt_number >= self._retries.attempts or ends > self._retries.total

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda outcome: isinstance(outcome, Refusal) and again(outcome)),
            wait=wait,
            stop=stop,
            retry_error_callback=_refusal,
        )
        return await attempts(attempt)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; it may block, for as long as a request at most.

        A thread cannot be stopped: whoever cancels waits for its end, so that nothing of ours acts on a shard that
        somebody else owns by then.
        """
        async with self._place.slot():
            return await self._in_thread(work)

    async def aclose(self) -> None:
        """Wait for what is under way; a later request fails."""
        self._closed = True
        while self._under_way:
            await asyncio.wait(self._under_way)

    @property
    def _place(self) -> Place:
        return place_of(self._provider, self._place_name)

    async def _once(self, operation: str, ask: Callable[[], T], fence: Fence | None) -> T:
        def timed() -> tuple[T, float]:
            started = time.monotonic()
            outcome = ask()
            return outcome, time.monotonic() - started

        def ended(future: asyncio.Future[tuple[T, float]]) -> None:
            if future.cancelled() or future.exception() is not None:
                return  # The caller is told.
            outcome, seconds = future.result()
            refusal = outcome if isinstance(outcome, Refusal) else None
            place.told(seconds, answered=refusal is None or not refusal.passing)
            occasion.count_request()
            self._on_call(self._provider, operation, "OK" if refusal is None else refusal.code, seconds)

        place = self._place
        async with place.slot():
            if fence is not None:
                fence.check(REQUEST_TIMEOUT)
            outcome, _ = await self._in_thread(timed, ended)
        return outcome

    async def _in_thread(self, work: Callable[[], T], ended: Callable[[asyncio.Future[T]], None] | None = None) -> T:
        if self._closed:
            raise RuntimeError("the provider is closed")
        future = self._place.run(work)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        if ended is not None:
            future.add_done_callback(ended)  # It is called also for one whose caller was cancelled.
        try:
            return await asyncio.shield(future)
        finally:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # The first one is under way already.


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results in order; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def believed(seconds: float) -> float | None:
    """Return a store's wish to wait, in seconds, or None where it cannot be meant."""
    return seconds if 0 <= seconds <= _LONGEST_HINT else None


def unobserved(provider: str, operation: str, code: str, seconds: float) -> None:
    """Observe nothing: the `CallObserver` of whoever does not count."""


def _refusal(state: tenacity.RetryCallState) -> Refusal:
    assert state.outcome is not None  # tenacity asks after an attempt.
    refusal = state.outcome.result()
    assert isinstance(refusal, Refusal)  # Nothing else is tried again.
    return refusal
