"""Something that expires, such as a token: obtained when it is first needed, and anew before its end."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from secret_manager_controller.errors import ControllerError

RENEW_AGAIN = 60.0  # Seconds until the next attempt while the old one still holds.

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Renewing(Generic[T]):
    """What a login is exchanged for. Safe for concurrent use on one event loop.

    Args:
        obtain: returns a new one and the seconds that it lasts; raises `ControllerError`.
        what: its name in the log.
        before: seconds before the end in which it is renewed; an outage that is shorter goes unnoticed.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        obtain: Callable[[], Awaitable[tuple[T, float]]],
        *,
        what: str,
        before: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._obtain = obtain
        self._what = what
        self._before = before
        self._clock = clock
        self._lock = asyncio.Lock()
        self._held: T | None = None
        self._renew_at = self._expires = -math.inf

    async def current(self) -> T:
        """Return it; concurrent callers wait for one exchange.

        Raises:
            ControllerError: of `obtain`, where there is none that still holds.
        """
        if self._clock() >= self._renew_at:
            async with self._lock:
                if self._clock() >= self._renew_at:
                    await self._renew()
        assert self._held is not None  # Or _renew raised.
        return self._held

    async def after(self, spent: T) -> T:
        """Return another one, since the store does not accept `spent` any more."""
        async with self._lock:
            if self._held is spent:
                self._expires = -math.inf
                await self._renew()
        assert self._held is not None  # Or _renew raised.
        return self._held

    async def _renew(self) -> None:
        began = self._clock()
        try:
            held, lasts = await self._obtain()
        except ControllerError as error:
            if self._clock() >= self._expires:
                self._renew_at = -math.inf
                raise
            self._renew_at = min(self._clock() + RENEW_AGAIN, self._expires)
            _log.warning(
                "a login could not be renewed; it still holds", extra={"of": self._what, "reason": error.reason}
            )
            return
        self._held, self._expires = held, began + lasts
        # What lasts shortly is renewed half-way.
        self._renew_at = began + max(lasts - self._before, lasts / 2)
