"""Budgets of requests: as many as an account's quota allows, shared by all who use the account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from secret_manager_controller.errors import Reason, RetryableError

LEFT_TO_URGENT = 0.1
"""Share of the burst that requests which are not urgent leave."""


class BudgetSpent(RetryableError):  # noqa: N818 - it tells a state, which passes.
    """RateLimited, by ourselves: no request was made, since the account's quota would not bear it soon enough."""


class Budget:
    """A token bucket: so many requests a minute, and some more at once after a rest.

    In any minute at most `per_minute + burst` requests are let through. Waiting requests go in the order in which they
    asked.

    Args:
        title: whose requests of which kind, for messages.
        per_minute: requests a minute in the long run, by all members together.
        burst: requests at once, by all members together.
        members: how many live members share the account.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        title: str,
        *,
        per_minute: float,
        burst: float,
        members: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._per_minute = per_minute
        self._burst = burst
        self._members = members
        self._clock = clock
        self._at = clock()
        self._tokens = self._most

    async def take(self, *, within: float, urgent: bool = True) -> None:
        """Wait until a request may be made.

        Args:
            within: seconds that the caller is ready to wait.
            urgent: whether it is for a change; what is not leaves a part of the burst to what is.

        Raises:
            BudgetSpent: it would take longer; nobody waited.
        """
        self._refill()
        needed = 1.0 if urgent else 1.0 + LEFT_TO_URGENT * (self._most - 1.0)
        wait = max(0.0, (needed - self._tokens) / self._rate)
        if wait > within:
            message = (
                f"the budget of {self._title} is spent for the next {wait:.0f} s; it is tried again later. If that "
                "lasts, raise the quota, or the interval of the objects that use it"
            )
            raise BudgetSpent(Reason.RATE_LIMITED, message, retry_after=wait)
        self._tokens -= 1.0
        if wait:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self._tokens += 1.0
                raise

    def slow_down(self, seconds: float) -> None:
        """Let nobody through for so long: the account's quota was exceeded, by whomever."""
        self._refill()
        self._tokens = min(self._tokens, 1.0 - seconds * self._rate)

    @property
    def _rate(self) -> float:
        """Tokens a second for this member."""
        return self._per_minute / 60.0 / max(self._members(), 1)

    @property
    def _most(self) -> float:
        """Tokens that this member can save up."""
        return max(self._burst / max(self._members(), 1), 1.0)

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now


class Budgets:
    """The budgets of this process, each made when it is first asked for and kept while anybody holds it.

    Attributes:
        members: how many live members share every account.
    """

    def __init__(self) -> None:
        self.members = 1
        self._budgets: WeakValueDictionary[str, Budget] = WeakValueDictionary()

    def of(self, title: str, *, per_minute: float, burst: float) -> Budget:
        """Return the budget of that title; the numbers count for the first who asks."""
        budget = self._budgets.get(title)
        if budget is None:
            budget = Budget(title, per_minute=per_minute, burst=burst, members=lambda: self.members)
            self._budgets[title] = budget
        return budget


SHARED_BUDGETS = Budgets()
"""What all providers of this process share; whoever knows how many members live tells it."""
