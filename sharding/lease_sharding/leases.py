"""Leases as values, and what the group's Leases say: sessions, claims, the shard count. Pure.

A Lease is a session, a claim or the group's config by its name:

    {group}-config             annotation shard-count
    {group}-member-{member}    session: holderIdentity = the member while the session lasts
    {group}-shard-{number}     claim: holderIdentity = the member that owns the shard

A writer leaves evidence of what it did. Who finds a Lease that no writer leaves behind, such as one that was edited or
deleted by hand, waits until whoever may have held it cannot hold it any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

API_VERSION: Final = "coordination.k8s.io/v1"
DOMAIN: Final = "lease-sharding.microscaler.io"
GROUP: Final = f"{DOMAIN}/group"
"""Label of every Lease of a group: what is listed and watched."""
SHARD: Final = f"{DOMAIN}/shard"
"""Label of a claim, for people: `kubectl get leases -l …/shard=07`. The name counts."""
SHARD_COUNT: Final = f"{DOMAIN}/shard-count"
"""Annotation of the config and of claims."""
SESSION: Final = f"{DOMAIN}/session"
"""Annotation: of a session, its id; of a claim, the session under which it is held."""
ENDED: Final = f"{DOMAIN}/ended-sessions"
"""Annotation of a session Lease: ids of its member's sessions that have ended for good, the last one first."""
DRAINING: Final = f"{DOMAIN}/draining"
"""Annotation of a session whose member is about to leave and takes no shard any more."""
SEAL: Final = f"{DOMAIN}/seal"
"""Annotation of sessions and claims: a checksum of what counts in them. An edit by hand breaks it, and is found out."""

REMEMBERED_SESSIONS: Final = 8
"""How many ended sessions a Lease names; claims of older ones have been waited out long since."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Lease:
    """A `coordination.k8s.io/v1` Lease, as far as it matters here.

    Attributes:
        uid: tells a Lease from another one of the same name; empty before it is created.
        resource_version: of the state that this value shows; empty before it is created.
        holder: `holderIdentity`, None if there is none.
        duration: `leaseDurationSeconds`.
        acquired: `acquireTime`.
        renewed: `renewTime`; its writer's clock says so, and nobody compares it with another clock.
        transitions: `leaseTransitions`.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    holder: str | None = None
    duration: int | None = None
    acquired: datetime | None = None
    renewed: datetime | None = None
    transitions: int = 0
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def version(self) -> tuple[str, str]:
        """What differs between any two states of a name."""
        return self.uid, self.resource_version


def parse_lease(body: Mapping[str, Any]) -> Lease:
    """Return the Lease that the API server wrote as JSON.

    Raises:
        KeyError: it is no Kubernetes object.
    """
    metadata, spec = body["metadata"], body.get("spec") or {}
    return Lease(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        holder=spec.get("holderIdentity") or None,
        duration=spec.get("leaseDurationSeconds"),
        acquired=_parse_time(spec.get("acquireTime")),
        renewed=_parse_time(spec.get("renewTime")),
        transitions=spec.get("leaseTransitions") or 0,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )


def format_lease(lease: Lease, *, namespace: str) -> dict[str, Any]:
    """Return the JSON object to create (no uid) or to replace the Lease with, in the state that it was read in.

    The uid goes along: a PUT creates a Lease that does not exist, unless it names the uid of one that did.
    """
    metadata: dict[str, Any] = {
        "name": lease.name,
        "namespace": namespace,
        "labels": dict(lease.labels),
        "annotations": dict(lease.annotations),
    }
    if lease.uid:
        metadata |= {"uid": lease.uid, "resourceVersion": lease.resource_version}
    spec = {
        "holderIdentity": lease.holder or "",
        "leaseDurationSeconds": lease.duration,
        "acquireTime": _format_time(lease.acquired),
        "renewTime": _format_time(lease.renewed),
        "leaseTransitions": lease.transitions,
    }
    body = {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata}
    return body | {"spec": {name: value for name, value in spec.items() if value is not None}}


def _parse_time(text: object) -> datetime | None:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(str(text)).astimezone(UTC) if text else None
    return None


def _format_time(time: datetime | None) -> str | None:
    """Return a MicroTime: RFC 3339 with six digits and Z."""
    return None if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a group's Leases."""

    group: str
    shards: int

    @property
    def config(self) -> str:
        """The Lease that holds the shard count."""
        return f"{self.group}-config"

    def session(self, member: str) -> str:
        """Return the name of a member's session Lease."""
        return f"{self.group}-member-{member}"

    def claim(self, shard: int) -> str:
        """Return the name of a shard's claim; all are of one length, so that they sort by number."""
        return f"{self.group}-shard-{self.number(shard)}"

    def number(self, shard: int) -> str:
        """Return a shard's number as names and labels have it."""
        return f"{shard:0{max(2, len(str(self.shards - 1)))}d}"

    def member_of(self, name: str) -> str | None:
        """Return whose session Lease has this name, None if it is none."""
        prefix = f"{self.group}-member-"
        return name.removeprefix(prefix) or None if name.startswith(prefix) else None

    def shard_of(self, name: str) -> int | None:
        """Return the shard whose claim has this name, None if it is none of the group's shards."""
        prefix = f"{self.group}-shard-"
        digits = name.removeprefix(prefix)
        if not name.startswith(prefix) or not (digits.isascii() and digits.isdigit()):
            return None
        shard = int(digits)
        return shard if shard < self.shards and self.claim(shard) == name else None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What a session Lease says.

    Attributes:
        session: the id of the session that lasts, None if it has ended.
        ended: ids of sessions of this member that have ended for good.
        draining: the member is about to leave.
        duration: seconds that it lasts without a renewal; None if the Lease was edited by hand and may tell anything.
    """

    member: str
    session: str | None
    ended: tuple[str, ...]
    draining: bool
    duration: int | None
    lease: Lease


def session_record(member: str, lease: Lease) -> SessionRecord:
    """Return what a member's session Lease says; a holder that is not the member means that it has ended."""
    annotations, sealed = lease.annotations, is_sealed(lease)
    return SessionRecord(
        member=member,
        session=annotations.get(SESSION) or None if lease.holder == member else None,
        ended=_ended_sessions(lease) if sealed else (),
        draining=DRAINING in annotations,
        duration=lease.duration if sealed else None,
        lease=lease,
    )


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """What a claim says.

    Attributes:
        holder: the member that owns the shard, None if nobody does.
        session: the id of the session under which it is held.
        epoch: how many times the shard has changed hands.
        sealed: it was written by a member, and not edited by hand since.
        count: the shard count that it was made for.
    """

    shard: int
    holder: str | None
    session: str | None
    epoch: int
    sealed: bool
    count: str | None
    lease: Lease


def claim_record(shard: int, lease: Lease) -> ClaimRecord:
    """Return what a shard's claim says."""
    annotations = lease.annotations
    session = annotations.get(SESSION) or None
    return ClaimRecord(
        shard=shard,
        holder=lease.holder,
        session=session,
        epoch=lease.transitions,
        sealed=is_sealed(lease),
        count=annotations.get(SHARD_COUNT),
        lease=lease,
    )


# Transitions: the Lease to write, as a value.


def config_lease(names: Names, lease: Lease | None = None) -> Lease:
    """Return the Lease that fixes the group's shard count; `lease` as it was read, if there is one."""
    before = lease or Lease(name=names.config)
    return dataclasses.replace(
        before,
        labels={**before.labels, GROUP: names.group},
        annotations={**before.annotations, SHARD_COUNT: str(names.shards)},
    )


def opened(
    lease: Lease, *, group: str, member: str, session: str, ended: tuple[str, ...], duration: int, now: datetime
) -> Lease:
    """Return a member's session Lease at the beginning of a session.

    Args:
        lease: as it was read, or an empty one of that name.
        group: the label to be listed by.
        member: whose session.
        session: its id.
        ended: sessions of this member that have ended for good.
        duration: seconds that it lasts without a renewal.
        now: the time of day.
    """
    annotations = _without(lease.annotations, DRAINING) | {SESSION: session}
    annotations |= _remembered(ended, lease)
    return _sealed(
        lease,
        holder=member,
        duration=duration,
        acquired=now,
        renewed=_later(now, lease.renewed),
        transitions=lease.transitions + 1,
        labels={**lease.labels, GROUP: group},
        annotations=annotations,
    )


def renewed(lease: Lease, *, group: str, duration: int, draining: bool, now: datetime) -> Lease:
    """Return a session Lease that lasts on; its renewTime differs from the last one, whatever the clock says."""
    annotations = dict(lease.annotations) | ({DRAINING: "true"} if draining else {})
    return _sealed(
        lease,
        duration=duration,
        renewed=_later(now, lease.renewed),
        labels={**lease.labels, GROUP: group},
        annotations=annotations,
    )


def ended(lease: Lease) -> Lease:
    """Return a session Lease whose session was taken from its member: the session has ended for good."""
    gone = lease.annotations.get(SESSION)
    annotations = _without(lease.annotations, SESSION, DRAINING) | _remembered((gone,) if gone else (), lease)
    return _sealed(lease, holder=None, duration=None, annotations=annotations, transitions=lease.transitions + 1)


def placeholder(names: Names, shard: int, *, epoch: int) -> Lease:
    """Return a claim that nobody holds, for a shard that has none.

    It bears no seal: somebody may have held the shard until just now. That a Lease is absent twice does not mean that
    it was absent in between; that it is there in one version twice does.

    Args:
        names: the group's.
        shard: its number.
        epoch: the highest one of the shard that the writer has seen.
    """
    labels = {GROUP: names.group, SHARD: names.number(shard)}
    return Lease(name=names.claim(shard), transitions=epoch, labels=labels)


def claimed(
    lease: Lease,
    *,
    names: Names,
    shard: int,
    member: str,
    session: str,
    epoch: int,
    duration: int,
    now: datetime,
) -> Lease:
    """Return a shard's claim, held by a member under its session.

    Args:
        lease: as it was read.
        names: the group's.
        shard: its number.
        member: who holds it.
        session: the member's session.
        epoch: higher than every earlier one of this shard.
        duration: the session's, for who reads the Lease.
        now: the time of day.
    """
    annotations = dict(lease.annotations) | {SESSION: session, SHARD_COUNT: str(names.shards)}
    return _sealed(
        lease,
        holder=member,
        duration=duration,
        acquired=now,
        renewed=now,
        transitions=epoch,
        labels={**lease.labels, GROUP: names.group, SHARD: names.number(shard)},
        annotations=annotations,
    )


def released(lease: Lease, *, now: datetime) -> Lease:
    """Return a claim that its holder has given up."""
    return _sealed(lease, holder=None, renewed=now, annotations=_without(lease.annotations, SESSION))


def labelled(lease: Lease, *, group: str) -> Lease:
    """Return a Lease with the group's label, which somebody removed, and nothing else changed."""
    return dataclasses.replace(lease, labels={**lease.labels, GROUP: group})


def is_sealed(lease: Lease) -> bool:
    """Tell whether a Lease is as a member wrote it."""
    return lease.annotations.get(SEAL) == _checksum(lease)


def _sealed(lease: Lease, **changes: Any) -> Lease:
    changed = dataclasses.replace(lease, **changes)
    return dataclasses.replace(changed, annotations={**changed.annotations, SEAL: _checksum(changed)})


def _checksum(lease: Lease) -> str:
    annotations = lease.annotations
    holder, session, ended_sessions = lease.holder or "", annotations.get(SESSION, ""), annotations.get(ENDED, "")
    return _digest(lease.name, holder, str(lease.duration), str(lease.transitions), session, ended_sessions)


@functools.lru_cache(maxsize=16_384)  # Every look at the group checks every seal.
def _digest(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


def _without(annotations: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name not in names}


def _ended_sessions(lease: Lease) -> tuple[str, ...]:
    return tuple(part for part in lease.annotations.get(ENDED, "").split(",") if part)


def _remembered(first: tuple[str, ...], lease: Lease) -> dict[str, str]:
    """Return the annotation that names ended sessions, the given ones first; none if there are none."""
    ids = list(dict.fromkeys([*first, *_ended_sessions(lease)]))[:REMEMBERED_SESSIONS]
    return {ENDED: ",".join(ids)} if ids else {}


def _later(now: datetime, before: datetime | None) -> datetime:
    """Return `now`, or just after `before`: a write that changes nothing would not be one, and nobody would see it."""
    return now if before is None or now > before else before + _MICROSECOND
