"""Remembers members that live but do not claim what is meant for them. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from lease_sharding.observe import Situation

LONGEST = 32
"""How many times the first period a period may grow."""


@dataclass(frozen=True, slots=True)
class _Note:
    until: float
    period: float
    session: str | None
    owned: int


class Unwilling:
    """Members that left a shard to others, for a time that grows each time.

    Without it, those who jumped in would own more than their share, release the surplus for the same member, wait, jump
    in, and so on.
    """

    def __init__(self, period: float) -> None:
        """Make an empty memory.

        Args:
            period: seconds for which a member counts for nothing at first.
        """
        self._period = period
        self._notes: dict[str, _Note] = {}

    def note(self, member: str, situation: Situation) -> None:
        """Note that somebody else had to claim what was meant for a member."""
        session, owned = _standing(member, situation)
        before = self._notes.get(member)
        if before is not None and situation.now < before.until:
            return
        period = self._period if before is None else min(before.period * 2, self._period * LONGEST)
        self._notes[member] = _Note(situation.now + period, period, session, owned)

    def members(self, situation: Situation) -> frozenset[str]:
        """Return who counts for nothing now; who has a new session or claimed something since is forgiven."""
        for member, note in list(self._notes.items()):
            session, owned = _standing(member, situation)
            if session != note.session or owned > note.owned:
                del self._notes[member]
        return frozenset(member for member, note in self._notes.items() if situation.now < note.until)

    def next(self, now: float) -> float | None:
        """Return when the next of them counts again; None if none is left out."""
        return min((note.until for note in self._notes.values() if now < note.until), default=None)


def _standing(member: str, situation: Situation) -> tuple[str | None, int]:
    session = situation.sessions.get(member)
    return (session.id if session is not None else None), len(situation.owned(member))
