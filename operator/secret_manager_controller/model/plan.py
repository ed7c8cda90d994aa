"""The decision: what is to be done with each secret, and what must not be.

`names_to_read` says whose values have to be compared, `make_plan` decides with the verdicts of that comparison. Neither
sees a stored value.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from secret_manager_controller.model.desired import DesiredSecret, DesiredState
from secret_manager_controller.model.inventory import Inventory, InventoryEntry
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteState
from secret_manager_controller.model.secret import NOT_COMPARED, SecretName, SourceHash, Version

PRUNE_FREE_INVENTORY = 5
"""An inventory of at most so many secrets may lose any number of them without a confirmation."""
PRUNE_FREE_SHARE = 0.5
"""Of a larger inventory at most this share may leave Git without a confirmation."""


class Adoption(enum.StrEnum):
    """`spec.adoption`: what to do with a secret that exists without a living owner."""

    FAIL = "Fail"
    ADOPT = "Adopt"


class UpdatePolicy(enum.StrEnum):
    """`spec.updatePolicy`: whether a value that is in the store may be replaced."""

    REPLACE = "Replace"
    CREATE_ONLY = "CreateOnly"


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """What the object allows, and who else lives.

    Attributes:
        me: the mark of this object.
        living_owners: the marks of other owners that exist; their secrets are never touched. A mark of another cluster
            always counts as living, since nobody here can know.
        prune_confirmed: the object's annotation confirms that many secrets may go.
    """

    me: OwnerMark
    living_owners: frozenset[OwnerMark] = frozenset()
    adoption: Adoption = Adoption.FAIL
    update_policy: UpdatePolicy = UpdatePolicy.REPLACE
    prune: bool = False
    prune_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a stored value compares with Git's, and the version that it was confirmed at."""

    version: Version
    equal: bool


@dataclass(frozen=True, slots=True)
class Create:
    """The secret does not exist."""

    secret: DesiredSecret


@dataclass(frozen=True, slots=True)
class Update:
    """Ours, with another value than Git's or without a usable one, or with other options than the object declares.

    Attributes:
        write: the value is written; else only what stands beside it.
        recorded: of a value that is not written, the source that it is known to equal.
    """

    secret: DesiredSecret
    current: RemoteSecret
    write: bool = True
    recorded: SourceHash = NOT_COMPARED


@dataclass(frozen=True, slots=True)
class Adopt:
    """Nobody's that lives: mark it as ours, and write the value where it differs.

    Attributes:
        write: the value differs, or there is none.
        compared: whether the value was looked at; `updatePolicy: CreateOnly` does not.
    """

    secret: DesiredSecret
    current: RemoteSecret
    write: bool
    compared: bool = True


@dataclass(frozen=True, slots=True)
class Prune:
    """Ours, and gone from Git."""

    current: RemoteSecret


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Ours, and equal to Git (or left as it is by `updatePolicy: CreateOnly`)."""

    name: SecretName
    version: Version
    source_hash: SourceHash


@dataclass(frozen=True, slots=True)
class Conflict:
    """Not ours; it stays as it is."""

    name: SecretName
    message: str


Action = Create | Update | Adopt | Prune | Unchanged | Conflict


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be done, in order of names.

    Attributes:
        actions: one for each desired secret, and a Prune for each that may go.
        orphans: ours, gone from Git, and kept since `prune` is off.
        held: ours, gone from Git, and kept since too many would go at once without a confirmation.
    """

    actions: tuple[Action, ...]
    orphans: tuple[SecretName, ...] = ()
    held: tuple[SecretName, ...] = ()

    @property
    def changes(self) -> tuple[Create | Update | Adopt | Prune, ...]:
        """The actions that write."""
        return tuple(a for a in self.actions if isinstance(a, Create | Update | Adopt | Prune))

    @property
    def unchanged(self) -> tuple[Unchanged, ...]:
        """The secrets that are as they should be."""
        return tuple(a for a in self.actions if isinstance(a, Unchanged))

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The secrets that are not ours."""
        return tuple(a for a in self.actions if isinstance(a, Conflict))


class _Ownership(enum.Enum):
    MINE = enum.auto()
    NOBODYS = enum.auto()
    ANOTHERS = enum.auto()


def names_to_read(
    desired: DesiredState, observed: ObservedState, inventory: Inventory, policy: PlanPolicy
) -> tuple[RemoteSecret, ...]:
    """Return the secrets whose value has to be compared: its version moved, or its source changed."""
    if policy.update_policy is UpdatePolicy.CREATE_ONLY:
        return ()
    return tuple(
        remote
        for name, secret in sorted(desired.secrets.items())
        if (remote := observed.secrets.get(name)) is not None
        and _may_take(remote, policy)
        and _usable(remote)
        and not _recorded(secret, remote, inventory.get(name), policy)
    )


def make_plan(
    desired: DesiredState,
    observed: ObservedState,
    inventory: Inventory,
    policy: PlanPolicy,
    verdicts: Mapping[SecretName, Verdict],
) -> Plan:
    """Decide what is to be done.

    Args:
        desired: Git's wish.
        observed: the store, for at least the names of `desired` and `inventory`.
        inventory: what status records.
        policy: what the object allows.
        verdicts: the comparison of each secret that `names_to_read` named; one that vanished meanwhile has none.
    """
    actions: list[Action] = [
        _decide(secret, observed.secrets.get(name), inventory.get(name), policy, verdicts.get(name))
        for name, secret in sorted(desired.secrets.items())
    ]
    gone = tuple(
        remote
        for name, remote in sorted(observed.secrets.items())
        if name not in desired.secrets and remote.mark == policy.me and remote.state is RemoteState.ACTIVE
    )
    if not policy.prune:
        return Plan(tuple(actions), orphans=tuple(remote.name for remote in gone))
    kept = sum(1 for name in desired.secrets if _is_mine(observed.secrets.get(name), policy))
    if _too_many(len(gone), of=len(gone) + kept) and not policy.prune_confirmed:
        return Plan(tuple(actions), held=tuple(remote.name for remote in gone))
    return Plan((*actions, *(Prune(remote) for remote in gone)))


def cleanup_plan(observed: ObservedState, me: OwnerMark) -> Plan:
    """Decide what goes with an object that is deleted under `deletionPolicy: Delete`: all that carries its mark."""
    mine = (remote for remote in observed.secrets.values() if remote.mark == me and remote.state is RemoteState.ACTIVE)
    return Plan(tuple(Prune(remote) for remote in sorted(mine, key=lambda remote: remote.name)))


def _decide(
    secret: DesiredSecret,
    remote: RemoteSecret | None,
    entry: InventoryEntry | None,
    policy: PlanPolicy,
    verdict: Verdict | None,
) -> Action:
    if remote is None:
        return Create(secret)
    if not _may_take(remote, policy):
        return Conflict(secret.name, _conflict_message(remote, policy))
    mine = _is_mine(remote, policy)
    if not _usable(remote):
        return Update(secret, remote) if mine else Adopt(secret, remote, write=True)
    assert remote.version is not None  # _usable said so.
    if mine and _recorded(secret, remote, entry, policy):
        return _kept(secret, remote, secret.source_hash)
    if policy.update_policy is UpdatePolicy.CREATE_ONLY:
        # What was not compared is not recorded as equal: once the policy is Replace, it is read.
        known = entry.source_hash if entry is not None and entry.version == remote.version else NOT_COMPARED
        return _kept(secret, remote, known) if mine else Adopt(secret, remote, write=False, compared=False)
    if verdict is None:
        # It vanished between the listing and the read. The update then fails with StoreChanged and is tried again.
        return Update(secret, remote) if mine else Adopt(secret, remote, write=True)
    confirmed = replace(remote, version=verdict.version)
    if not mine:
        return Adopt(secret, confirmed, write=not verdict.equal)
    return _kept(secret, confirmed, secret.source_hash) if verdict.equal else Update(secret, confirmed)


def _kept(secret: DesiredSecret, remote: RemoteSecret, recorded: SourceHash) -> Unchanged | Update:
    """Return the action for a secret of ours whose value stays."""
    assert remote.version is not None  # A secret without one is written.
    if remote.options_differ:
        return Update(secret, remote, write=False, recorded=recorded)
    return Unchanged(secret.name, remote.version, recorded)


def _ownership(remote: RemoteSecret, policy: PlanPolicy) -> _Ownership:
    if remote.mark == policy.me:
        return _Ownership.MINE
    if remote.mark is None:
        return _Ownership.NOBODYS
    if remote.mark.cluster != policy.me.cluster or remote.mark in policy.living_owners:
        return _Ownership.ANOTHERS
    return _Ownership.NOBODYS


def _is_mine(remote: RemoteSecret | None, policy: PlanPolicy) -> bool:
    return remote is not None and _ownership(remote, policy) is _Ownership.MINE


def _may_take(remote: RemoteSecret, policy: PlanPolicy) -> bool:
    ownership = _ownership(remote, policy)
    if ownership is _Ownership.NOBODYS:
        # A secret that its owner scheduled for deletion is not brought back by someone else.
        return policy.adoption is Adoption.ADOPT and remote.state is RemoteState.ACTIVE
    return ownership is _Ownership.MINE


def _usable(remote: RemoteSecret) -> bool:
    return remote.state is RemoteState.ACTIVE and remote.version is not None


def _recorded(secret: DesiredSecret, remote: RemoteSecret, entry: InventoryEntry | None, policy: PlanPolicy) -> bool:
    """Same source, same version, our mark: equal without reading a value."""
    return (
        entry is not None
        and remote.mark == policy.me
        and entry.version == remote.version
        and entry.source_hash == secret.source_hash
    )


def _too_many(count: int, *, of: int) -> bool:
    return of > PRUNE_FREE_INVENTORY and count > PRUNE_FREE_SHARE * of


def _conflict_message(remote: RemoteSecret, policy: PlanPolicy) -> str:
    if _ownership(remote, policy) is _Ownership.ANOTHERS:
        assert remote.mark is not None  # Only a mark makes a secret another's.
        where = "" if remote.mark.cluster == policy.me.cluster else f" of cluster {remote.mark.cluster!r}"
        return f"{remote.name!r} is managed by {remote.mark.owner!r}{where}; choose another prefix or suffix"
    if remote.state is RemoteState.DELETION_SCHEDULED:
        return f"{remote.name!r} is scheduled for deletion by someone else; restore it or wait until it is gone"
    return f"{remote.name!r} exists and is not managed by this object; set spec.adoption: Adopt to take it over"
