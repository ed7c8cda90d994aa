"""The settings of one group of members, checked against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lease_sharding.errors import SettingsError, foreign

MAX_SHARDS = 4096
"""Every member lists all claims every few seconds: 4,096 of them are 4 MB."""
LABEL_LENGTH = 63
"""Characters of a DNS label and of a label's value."""
NAME_LENGTH = 253
"""Characters of a Lease's name, a DNS subdomain."""
LEAST_MARGIN_SHARE = 0.01
"""The margin takes up how differently two clocks run: quartz by 0.01 % at most, and this is a hundred times that."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def is_name(text: str) -> bool:
    """Tell whether a text can be part of a Lease's name and a label's value."""
    return len(text) <= LABEL_LENGTH and _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all members of a group share. Durations are seconds.

    Attributes:
        group: begins the name of each of the group's Leases, and labels them.
        shards: how many there are; fixed for the group's life.
        session_duration: after so long without a renewal a member counts as dead. Whole seconds, as Leases have it.
        renew_interval: from the start of one renewal to the start of the next.
        resync_interval: from one listing of the group's Leases to the next; between them a watch tells what changes.
        request_timeout: for one call to the API server.
        margin: how much sooner a member itself stops to act than others take it for dead.
        take_grace: how long the member that a shard is meant for may take to claim it, before anyone does.
        drain_timeout: how long a drained shard's work may go on before its right to act is withdrawn.
        poll_interval: from one listing to the next where there is no watch.
    """

    group: str
    shards: int = 32
    session_duration: int = 10
    renew_interval: float = 2.0
    resync_interval: float = 2.0
    request_timeout: float = 2.0
    margin: float = 1.0
    take_grace: float = 2.0
    drain_timeout: float = 15.0
    poll_interval: float = 0.5

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise SettingsError("; ".join(problems))

    @property
    def longest_call(self) -> float:
        """How long an effect's time-out may be, in seconds.

        At any moment, while the API server answers at once, a fence has at least this much left. An effect whose own
        time-out is longer would be refused now and then.
        """
        return self.session_duration - self.margin - max(self.renew_interval, self.resync_interval)

    def _problems(self) -> Iterator[str]:
        if not is_name(self.group):
            yield (
                f"group {foreign(self.group)!r} is not a name: lower-case letters, digits, '-' and '.', "
                f"{LABEL_LENGTH} characters at most"
            )
        if not 1 <= self.shards <= MAX_SHARDS:
            yield f"shards is {self.shards}: it must be from 1 to {MAX_SHARDS}"
        if self.session_duration != int(self.session_duration) or self.session_duration < 1:
            yield f"session_duration is {self.session_duration:g} s: Leases count whole seconds, at least 1"
        for name in ("renew_interval", "resync_interval", "request_timeout", "margin", "poll_interval"):
            if getattr(self, name) <= 0:
                yield f"{name} is {getattr(self, name):g} s: it must be more than 0"
        for name in ("take_grace", "drain_timeout"):
            if getattr(self, name) < 0:
                yield f"{name} is {getattr(self, name):g} s: it must not be less than 0"
        yield from self._contradictions()

    def _contradictions(self) -> Iterator[str]:
        session, usable = self.session_duration, self.session_duration - self.margin
        if session <= 2 * self.renew_interval:
            yield (
                f"renew_interval is {self.renew_interval:g} s, session_duration {session:g} s: "
                "a session must last longer than two renew intervals, so that one renewal may fail"
            )
        if self.margin < LEAST_MARGIN_SHARE * session:
            yield (
                f"margin is {self.margin:g} s: it must be at least {LEAST_MARGIN_SHARE:.0%} of session_duration "
                f"({LEAST_MARGIN_SHARE * session:g} s), since no two clocks run alike"
            )
        for name in ("renew_interval", "resync_interval"):
            needed = getattr(self, name) + 2 * self.request_timeout
            if needed > usable:
                yield (
                    f"{name} + 2 x request_timeout is {needed:g} s, session_duration - margin {usable:g} s: "
                    "a request that gets no answer must leave time for a second one"
                )
