"""Budgets of requests: as many as an account's quota allows, shared by all who use the account."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.providers import occasion

LEFT_TO_URGENT = 0.1
"""Share of the burst that requests which are not urgent leave."""
MEMBERS_AGE = 5.0
"""Seconds after which the live members are counted again: as often as they renew their sessions."""


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
        self._line = asyncio.Lock()  # Those that are not urgent, one after the other.
        self._patient = 0

    async def take(self, *, within: float, urgent: bool = True) -> None:
        """Wait until a request may be made.

        Args:
            within: seconds that the caller is ready to wait.
            urgent: whether it is for a change. What is not, or is of a reconcile that is not (see `occasion`), lets
                urgent ones pass while it waits, and leaves them a part of the burst.

        Raises:
            BudgetSpent: it would take longer; nobody waited.
        """
        if urgent and occasion.is_urgent():
            await self._take(self._wait(1.0), within)
            return
        needed = 1.0 + LEFT_TO_URGENT * (self._most - 1.0)
        self._check(self._wait(needed + self._patient), within)
        self._patient += 1
        try:
            async with self._line:
                while (wait := self._wait(needed)) > 0.0:
                    self._check(wait, within)
                    await asyncio.sleep(wait)
                self._tokens -= 1.0
        finally:
            self._patient -= 1

    def slow_down(self, seconds: float) -> None:
        """Let nobody through for so long: the account's quota was exceeded, by whomever."""
        self._refill()
        self._tokens = min(self._tokens, 1.0 - seconds * self._rate)

    async def _take(self, wait: float, within: float) -> None:
        self._check(wait, within)
        self._tokens -= 1.0
        if wait:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self._tokens += 1.0
                raise

    def _wait(self, tokens: float) -> float:
        """Return the seconds until there are so many tokens."""
        self._refill()
        return max(0.0, (tokens - self._tokens) / self._rate)

    def _check(self, wait: float, within: float) -> None:
        if wait > within:
            message = (
                f"the budget of {self._title} is spent for the next {wait:.0f} s; it is tried again later. If that "
                "lasts, raise the quota, or the interval of the objects that use it"
            )
            raise BudgetSpent(Reason.RATE_LIMITED, message, retry_after=wait)

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
    """The budgets of this process, each made when it is first asked for and kept while anybody holds it."""

    def __init__(self) -> None:
        self._count: Callable[[], int] = lambda: 1
        self._counted: tuple[float, int] = (-math.inf, 1)
        self._budgets: WeakValueDictionary[str, Budget] = WeakValueDictionary()

    def share(self, members: Callable[[], int]) -> None:
        """Divide every budget by the number of live members that `members` tells; it is asked every few seconds."""
        self._count, self._counted = members, (-math.inf, 1)

    def _members(self) -> int:
        now = time.monotonic()
        if now - self._counted[0] >= MEMBERS_AGE:
            self._counted = (now, self._count())
        return self._counted[1]

    def of(self, title: str, *, per_minute: float, burst: float) -> Budget:
        """Return the budget of that title; the numbers count for the first who asks."""
        budget = self._budgets.get(title)
        if budget is None:
            budget = Budget(title, per_minute=per_minute, burst=burst, members=self._members)
            self._budgets[title] = budget
        return budget


SHARED_BUDGETS = Budgets()
"""What all providers of this process share; whoever knows how many members live tells it."""
