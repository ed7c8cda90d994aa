"""Whether the watches move: what a listing shows, a watch must show soon, or it hangs without an error.

resourceVersions grow over all objects of a kind (KEP-5504), and our own status writes are changes too, so one number
a kind tells. A watch that hangs is silent like one of a quiet cluster; only a listing tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

STALL_SECONDS: Final = 60.0
"""A watch shows a change within milliseconds; one that takes so long, over two listings, does not move any more."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """The newest version of a listing that the watch has not shown.

    Attributes:
        since: when it was listed.
        confirmed: whether a later listing had it too; else its object may be gone, and nothing would show it.
    """

    version: int
    since: float
    confirmed: bool = False


class WatchProgress:
    """Compares what watches have shown with what listings have.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shown: dict[str, int] = {}
        self._pending: dict[str, _Pending | None] = {}

    def shown(self, kind: str, version: int | None) -> None:
        """Note that the watch of a kind has shown an object in a version."""
        if version is None or version <= self._shown.get(kind, -1):
            return
        self._shown[kind] = version
        pending = self._pending.get(kind)
        if pending is not None and pending.version <= version:
            self._pending[kind] = None

    def listed(self, kind: str, newest: int | None) -> None:
        """Note the newest version in a whole listing of a kind, None of an empty one."""
        pending = self._pending.get(kind)
        if newest is None or newest <= self._shown.get(kind, -1):
            self._pending[kind] = None
        elif pending is not None and pending.version <= newest:
            self._pending[kind] = _Pending(pending.version, pending.since, confirmed=True)
        else:
            self._pending[kind] = _Pending(newest, self._clock())

    def forget(self, kind: str) -> None:
        """Note that a kind is not watched any more."""
        self._shown.pop(kind, None)
        self._pending.pop(kind, None)

    def lags(self) -> Iterator[tuple[str, float]]:
        """Yield each kind that was listed, and for how many seconds its watch has not shown what is there."""
        now = self._clock()
        for kind, pending in self._pending.items():
            yield kind, 0.0 if pending is None else now - pending.since

    def stalled(self) -> str | None:
        """Return which watch hangs, as a sentence, or None if none does."""
        for kind, lag in self.lags():
            pending = self._pending[kind]
            if pending is not None and pending.confirmed and lag > STALL_SECONDS:
                return f"the watch of {kind} has not shown for {lag:.0f} s what two listings did"
        return None
