"""The observer's memory: what it saw of each Lease, and since when. No I/O, no clock: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable

from lease_sharding.leases import Lease, Names, claim_record, session_record
from lease_sharding.observe import (
    ClaimState,
    ClaimView,
    Myself,
    Observation,
    SessionView,
    Situation,
    claim_state,
    observe,
    view_session,
)

_Memo = tuple[ClaimState, tuple[str, str] | None, float]
"""A claim's state, its Lease's version, and since when it was seen so."""


class View:
    """The group's Leases, kept up to date by listings, by a watch and by the answers to one's own writes.

    These overtake each other. Resource versions of one resource grow (KEP-5504), so the newest one of a name counts.
    """

    def __init__(self, names: Names, *, duration: float) -> None:
        """Make an empty view.

        Args:
            names: the group's.
            duration: the observer's own session duration, in seconds.
        """
        self._names = names
        self._claim_names = [names.claim(shard) for shard in range(names.shards)]
        self._duration = duration
        self._seen: dict[str, Observation] = {}
        self._deleted: dict[str, int] = {}
        self._listed = 0
        self._claims: dict[int, _Memo] = {}
        self._longest = duration
        self._changes = 0
        self._epochs: dict[int, int] = {}

    def get(self, name: str) -> Lease | None:
        """Return the Lease of this name as it was seen last."""
        observation = self._seen.get(name)
        return observation.lease if observation is not None else None

    def leases(self) -> list[Lease]:
        """Return all Leases as they were seen last."""
        return [observation.lease for observation in self._seen.values()]

    def replace(self, leases: Iterable[Lease], resource_version: str, now: float) -> bool:
        """Take over a listing, and tell whether it showed anything new; what was seen in a newer version stays."""
        before = self._changes
        listed = _number(resource_version)
        self._listed = max(self._listed, listed)
        found = {lease.name: lease for lease in leases}
        for name, observation in list(self._seen.items()):
            if name not in found and _number(observation.lease.resource_version) <= listed:
                del self._seen[name]
        self._deleted = {name: version for name, version in self._deleted.items() if version > listed}
        for name, lease in found.items():
            if name not in self._deleted:
                self._put(lease, now)
        return self._changes > before

    def put(self, lease: Lease, now: float) -> None:
        """Take over one Lease from the watch or an answer, unless something newer is known of that name."""
        version, known = _number(lease.resource_version), lease.name in self._seen
        if version > self._deleted.get(lease.name, 0) and (known or version > self._listed):
            self._deleted.pop(lease.name, None)
            self._put(lease, now)

    def found(self, lease: Lease, now: float) -> None:
        """Take over one Lease as a GET just showed it, even if listings do not show it."""
        self._deleted.pop(lease.name, None)
        self._put(lease, now)

    def remove(self, name: str, resource_version: str) -> None:
        """Note that a Lease was deleted; the version is the deletion's."""
        version, observation = _number(resource_version), self._seen.get(name)
        if observation is not None and _number(observation.lease.resource_version) > version:
            return
        self._seen.pop(name, None)
        self._deleted[name] = max(version, self._deleted.get(name, 0))

    def look(self, now: float, myself: Myself) -> Situation:
        """Return the group as it is now; this is also when the observer first sees what has become uncertain."""
        sessions = {}
        for name, observation in sorted(self._seen.items()):
            member = self._names.member_of(name)
            if member is not None:
                record = session_record(member, observation.lease)
                self._longest = max(self._longest, record.duration or 0)
                # Whoever edited the Lease may have hidden how long its member's session is.
                least = self._duration if record.duration is not None else self._longest
                sessions[member] = view_session(record, observation.seen, now=now, duration=least)
        claims = tuple(self._claim(shard, sessions, now, myself) for shard in range(self._names.shards))
        return Situation(now, sessions, claims)

    def _put(self, lease: Lease, now: float) -> None:
        previous = self._seen.get(lease.name)
        if previous is None or _number(lease.resource_version) > _number(previous.lease.resource_version):
            self._seen[lease.name] = observe(previous, lease, now)
            self._changes += 1

    def _claim(self, shard: int, sessions: dict[str, SessionView], now: float, myself: Myself) -> ClaimView:
        observation = self._seen.get(self._claim_names[shard])
        record = None if observation is None else claim_record(shard, observation.lease)
        holder = sessions.get(record.holder) if record is not None and record.holder is not None else None
        sealed = record.epoch if record is not None and record.sealed else 0
        epoch = self._epochs[shard] = max(self._epochs.get(shard, 0), sealed)
        restored = observation is not None and sealed < epoch and now < observation.seen + self._longest
        state = claim_state(record, holder, myself, restored=restored)
        version = None if observation is None else observation.lease.version
        memo = self._claims.get(shard)
        if memo is None or memo[:2] != (state, version):
            memo = self._claims[shard] = (state, version, now)
        since = memo[2]
        if state is ClaimState.FREE and observation is not None:
            since = observation.seen  # The claim itself says so, whenever one looks.
        claimable: float | None
        match state:
            case ClaimState.FREE | ClaimState.DEAD:
                claimable = since
            case ClaimState.UNCERTAIN if record is not None:
                claimable = since + self._longest
            case _:
                claimable = None
        return ClaimView(shard, record, state, since, claimable, epoch)


def _number(resource_version: str) -> int:
    return int(resource_version) if resource_version.isascii() and resource_version.isdigit() else 0
