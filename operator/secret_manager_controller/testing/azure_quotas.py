"""How many requests a vault takes in ten seconds, and what it answers to more.

https://learn.microsoft.com/azure/key-vault/general/service-limits,
https://learn.microsoft.com/azure/key-vault/general/overview-throttling
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quotas:
    """Requests to one vault in one window; None is no limit.

    Attributes:
        all: of every kind.
        sets: that create a version.
        window: seconds; ten in the service.
    """

    all: int | None = None
    sets: int | None = None
    window: float = 10.0


class Throttle:
    """Counts requests; the caller serialises access.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.quotas = Quotas()
        self._now = now
        self._taken: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def reset(self) -> None:
        """Let there be no limits."""
        self.quotas = Quotas()
        self._taken.clear()

    def refuse(self, vault: str, operation: str) -> int | None:
        """Count a request; return the whole seconds to wait instead where it is one too many."""
        limits = {"all": self.quotas.all, "sets": self.quotas.sets if operation == "SetSecret" else None}
        now = self._now()
        waits = [
            self._wait(self._taken[vault, kind], limit, now) for kind, limit in limits.items() if limit is not None
        ]
        if any(wait is not None for wait in waits):
            return max(1, math.ceil(max(wait or 0.0 for wait in waits)))
        for kind, limit in limits.items():
            if limit is not None:
                self._taken[vault, kind].append(now)
        return None

    def _wait(self, taken: deque[float], limit: int, now: float) -> float | None:
        while taken and taken[0] <= now - self.quotas.window:
            taken.popleft()
        return taken[0] + self.quotas.window - now if len(taken) >= limit else None
