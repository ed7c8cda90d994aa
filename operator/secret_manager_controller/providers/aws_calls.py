"""Requests to AWS: in threads, one at a time each, bounded in time, tried again where that may help, and counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from lease_sharding.fence import Fence
from secret_manager_controller.providers.aws_errors import Refusal
from secret_manager_controller.providers.protocol import CallObserver

CONNECT_TIMEOUT = 2.0  # Seconds; a connection within a region takes milliseconds.
READ_TIMEOUT = 5.0  # Seconds; Secrets Manager answers in 10 to 200 ms, its first use of a KMS key in a second or two.
REQUEST_TIMEOUT = CONNECT_TIMEOUT + READ_TIMEOUT
"""Seconds that one request takes at most: the fence must hold for that long when it begins."""
THREADS = 16
"""Requests under way at once, for each provider."""

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUEST_ID = "x-amzn-requestid"  # Every answer of AWS has it.
_LONGEST_HINT = 3600.0  # Seconds; a Retry-After beyond an hour is not believed.

T = TypeVar("T")
Answer = Mapping[str, Any]
Client = Any
"""A botocore client: botocore makes their classes while it runs."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is made.

    Attributes:
        attempts: how many times at most.
        total: seconds after which no attempt may still be under way: one that timed out is made once more.
        first_wait: seconds before the second attempt, plus jitter; it doubles with each.
        longest_wait: seconds between two attempts at most. AWS's own wish may be longer.
    """

    attempts: int = 3
    total: float = 2 * REQUEST_TIMEOUT + 1.0
    first_wait: float = 0.2
    longest_wait: float = 3.0


class Requests:
    """Makes the requests of one provider. Safe for concurrent use on one event loop."""

    def __init__(self, *, on_call: CallObserver, retries: RetryPolicy) -> None:
        self._on_call = on_call
        self._retries = retries
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws-provider")
        # Nothing waits inside the executor, so that no request begins later than its fence was checked.
        self._slots = asyncio.Semaphore(THREADS)

    async def make(
        self, client: Client, operation: str, parameters: Mapping[str, Any], *, fence: Fence | None = None
    ) -> Answer | Refusal:
        """Make a request, again if that may help, and return the last answer.

        Args:
            client: the login's client.
            operation: the API's name of the request.
            parameters: as the API names them.
            fence: checked right before each attempt; for requests that change something.

        Raises:
            OwnershipLost: the fence closed; nothing was sent since.
        """
        first, longest = self._retries.first_wait, self._retries.longest_wait
        backoff = tenacity.wait_exponential(multiplier=first, max=longest) + tenacity.wait_random(0, first)
        started = time.monotonic()

        def wait(state: tenacity.RetryCallState) -> float:
            return max(backoff(state), _last(state).retry_after or 0.0)

        def stop(state: tenacity.RetryCallState) -> bool:
            ends = time.monotonic() - started + state.upcoming_sleep + REQUEST_TIMEOUT
            return state.attempt_number >= self._retries.attempts or ends > self._retries.total

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda outcome: isinstance(outcome, Refusal) and outcome.passing),
            wait=wait,
            stop=stop,
            retry_error_callback=_last,
        )
        outcome: Answer | Refusal = await attempts(self._once, client, operation, parameters, fence)
        return outcome

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; it may block, for as long as a request at most.

        A thread cannot be stopped: whoever cancels waits for its end, so that nothing of ours acts on a shard that
        somebody else owns by then.
        """
        async with self._slots:
            return await self._in_thread(work)

    async def aclose(self) -> None:
        """Wait for what is under way and end the threads."""
        for _ in range(THREADS):
            await self._slots.acquire()
        # Every thread is idle now and ends at once. A later request fails, instead of waiting for a slot.
        self._threads.shutdown(wait=True)
        for _ in range(THREADS):
            self._slots.release()

    async def _once(
        self, client: Client, operation: str, parameters: Mapping[str, Any], fence: Fence | None
    ) -> Answer | Refusal:
        def ask() -> Answer | Refusal:
            started = time.monotonic()
            outcome = _ask(client, operation, parameters)
            code = outcome.code if isinstance(outcome, Refusal) else "OK"
            loop.call_soon_threadsafe(self._on_call, "aws", operation, code, time.monotonic() - started)
            return outcome

        loop = asyncio.get_running_loop()
        async with self._slots:
            if fence is not None:
                fence.check(REQUEST_TIMEOUT)
            return await self._in_thread(ask)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        finally:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # The first one is under way already.


def _ask(client: Client, operation: str, parameters: Mapping[str, Any]) -> Answer | Refusal:
    """Make one request. Errors become values here: a botocore exception may quote what was sent."""
    try:
        answer: Answer = getattr(client, xform_name(operation))(**parameters)
    except ClientError as error:
        return _refusal(error.response)
    except (BotoConnectionError, HTTPClientError, ResponseParserError) as error:
        return Refusal(type(error).__name__, status=0)
    except BotoCoreError as error:
        return Refusal(type(error).__name__, status=400)
    if _REQUEST_ID not in answer["ResponseMetadata"]["HTTPHeaders"]:
        # A proxy's page with status 200, which botocore takes for an answer without content: for a write that was done.
        return Refusal("NotFromAws", status=0)
    return answer


def _refusal(response: Mapping[str, Any]) -> Refusal:
    metadata = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    return Refusal(
        # Codes become metric labels; what a proxy answers in AWS's stead may be anything.
        code if _CODE.fullmatch(code) else "Unknown",
        int(metadata.get("HTTPStatusCode", 0)),
        _seconds(metadata.get("HTTPHeaders", {}).get("retry-after", "")),
    )


def _seconds(header: str) -> float | None:
    try:
        seconds = float(header)
    except ValueError:
        return None  # Absent, or a date: AWS sends seconds.
    return seconds if 0 <= seconds <= _LONGEST_HINT else None


def _last(state: tenacity.RetryCallState) -> Refusal:
    assert state.outcome is not None  # tenacity asks after an attempt.
    refusal = state.outcome.result()
    assert isinstance(refusal, Refusal)  # Nothing else is tried again.
    return refusal
