"""Judges replicas that shared a store, from outside: by the store's call log, the claims, Git and the store's versions.

    verdict = judge(calls, members=…, namespaces=…, ownerships=…, git=…, stored=…, crashes=1)
    assert verdict.clean, verdict

Pure, and never wrong against anybody: where the evidence leaves room for an innocent explanation, it is believed. It
speaks of secrets by their names, never by their values.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from secret_manager_controller.testing.aws import WRITES
from secret_manager_controller.testing.calls import Call

SHOWN = 5
"""How many findings of a kind a verdict quotes."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """A member's claim of a shard, as it was seen from outside.

    Attributes:
        member: who held it; None for an owner that nobody saw, who may have been anybody.
        seen: when the claim was seen at the latest, in seconds since the epoch; it was written before.
    """

    member: str | None
    seen: float


@dataclass(frozen=True, slots=True)
class StoredVersions:
    """One secret as the store has it: all its values, oldest first, and the current one."""

    values: Sequence[bytes]
    current: bytes | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the referee found; each finding is a sentence.

    Attributes:
        double_writers: a member wrote for a namespace that another one owned by then.
        lost_changes: the store does not hold what Git held last, or went back to what Git held before.
        extra_versions: a value was written more often than crashes explain.
    """

    writes: int
    members: int
    namespaces: int
    crashes: int
    double_writers: tuple[str, ...]
    lost_changes: tuple[str, ...]
    extra_versions: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.double_writers or self.lost_changes or self.extra_versions)

    def __str__(self) -> str:
        """Return the verdict as people read it."""
        found = (self.double_writers, self.lost_changes, self.extra_versions)
        doubles, losses, extras = (len(findings) for findings in found)
        counted = (
            f"referee: {self.writes} writes by {self.members} members in {self.namespaces} namespaces, "
            f"{self.crashes} crashes: {doubles} double writers, {losses} lost changes, {extras} extra versions"
        )
        return "\n".join([counted, *(f"  {finding}" for findings in found for finding in findings[:SHOWN])])


def judge(
    calls: Iterable[Call],
    *,
    members: Mapping[str, str],
    namespaces: Mapping[str, str],
    ownerships: Mapping[str, Sequence[Ownership]],
    git: Mapping[str, Sequence[bytes]],
    stored: Mapping[str, StoredVersions],
    crashes: int,
) -> Verdict:
    """Return what is to be said of a run.

    Args:
        calls: the store's log; what is no member's or names none of the secrets is left out.
        members: the name of the member for each login of the log.
        namespaces: the namespace of each secret, by the secret's name.
        ownerships: who owned each namespace, in order.
        git: the values that Git gave each secret, in order, every one different from the others.
        stored: what the store holds now, by the secret's name.
        crashes: how many members were killed.
    """
    written: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.at):
        if call.operation in WRITES and call.who in members:
            for namespace in {namespaces[name] for name in call.names if name in namespaces}:
                written[namespace].append(call)
    doubles = [
        finding
        for namespace, its_calls in sorted(written.items())
        for finding in (
            *_overlaps(namespace, its_calls, members),
            *_usurpers(namespace, its_calls, members, ownerships.get(namespace, ())),
        )
    ]
    return Verdict(
        writes=sum(len(its_calls) for its_calls in written.values()),
        members=len({call.who for its_calls in written.values() for call in its_calls}),
        namespaces=len(set(namespaces.values())),
        crashes=crashes,
        double_writers=tuple(doubles),
        lost_changes=tuple(finding for name in sorted(git) for finding in _losses(name, git[name], stored.get(name))),
        extra_versions=tuple(_extras(stored, git, crashes)),
    )


def _overlaps(namespace: str, calls: Sequence[Call], members: Mapping[str, str]) -> Iterator[str]:
    """Yield the pairs of members whose calls the store was carrying out at one time."""
    latest: Call | None = None  # Of those that arrived before, the one that was carried out last.
    for call in calls:
        if latest is not None and call.who != latest.who and call.at < latest.at + latest.seconds:
            pair = f"{members[latest.who]} and {members[call.who]}"
            yield f"{namespace}: {latest.operation} and {call.operation} of {pair} were under way at one time"
        if latest is None or call.at + call.seconds > latest.at + latest.seconds:
            latest = call


def _usurpers(
    namespace: str, calls: Sequence[Call], members: Mapping[str, str], ownerships: Sequence[Ownership]
) -> Iterator[str]:
    """Yield the calls that fit in no order of ownership.

    Each call belongs to an ownership of its member, none to an earlier one than the call before it, and it arrived
    before the next owner's claim was seen. The earliest ownership that fits is the best choice for what follows.
    """
    at = 0
    for call in calls:
        member = members[call.who]
        fitting = (
            index
            for index in range(at, len(ownerships))
            if ownerships[index].member in {member, None}
            and (index + 1 == len(ownerships) or call.at <= ownerships[index + 1].seen)
        )
        index = next(fitting, None)
        if index is None:
            yield f"{namespace}: {call.operation} of {member} (call {call.number}) came when {member} did not own it"
        else:
            at = index


def _losses(name: str, git: Sequence[bytes], stored: StoredVersions | None) -> Iterator[str]:
    if stored is None:
        yield f"{name}: it is not in the store"
        return
    if stored.current != git[-1]:
        yield f"{name}: the store does not hold what Git held last"
    order = {value: position for position, value in enumerate(git)}
    known = [order[value] for value in stored.values if value in order]
    if any(later < earlier for earlier, later in itertools.pairwise(known)):
        yield f"{name}: the store went back to what Git held before"
    if len(known) < len(stored.values):
        yield f"{name}: {len(stored.values) - len(known)} versions were never in Git"


def _extras(stored: Mapping[str, StoredVersions], git: Collection[str], crashes: int) -> Iterator[str]:
    for name in sorted(git):
        if (secret := stored.get(name)) is not None:
            extra = len(secret.values) - len(set(secret.values))
            if extra > crashes:
                yield f"{name}: {extra} values were written again, and {crashes} members were killed"
