"""What another number of replicas would own, and what would move. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lease_sharding.assign import rebalance, shard_of


@dataclass(frozen=True, slots=True)
class MemberForecast:
    """What one replica would work on."""

    name: str
    shards: int
    namespaces: int
    objects: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """The balance of another number of replicas, and the way there.

    Attributes:
        moved_shards: those that a living replica owns now and another one would own then.
    """

    shards: int
    replicas_now: int
    members: tuple[MemberForecast, ...]
    moved_shards: int
    moved_namespaces: int
    moved_objects: int


def forecast(
    owners: Mapping[int, str], living: Sequence[str], *, replicas: int, shards: int, objects: Mapping[str, int]
) -> Forecast:
    """Return what `replicas` replicas would own.

    Args:
        owners: the owner of each shard that has one.
        living: the replicas that there are; the first ones stay, in the order of their names.
        replicas: how many there would be; new ones are named `new-1` and so on.
        shards: how many there are.
        objects: how many objects each namespace has.
    """
    staying = sorted(living)[:replicas]
    members = [*staying, *(f"new-{number + 1}" for number in range(replicas - len(staying)))]
    then = rebalance(owners, members, shards)
    moved = {shard for shard, owner in owners.items() if then[shard] != owner}
    shard_by_namespace = {namespace: shard_of(namespace, shards) for namespace in objects}

    def work(of: set[int]) -> tuple[int, int]:
        there = [namespace for namespace, shard in shard_by_namespace.items() if shard in of]
        return len(there), sum(objects[namespace] for namespace in there)

    rows = []
    for member in members:
        its = {shard for shard, owner in then.items() if owner == member}
        rows.append(MemberForecast(member, len(its), *work(its)))
    return Forecast(shards, len(living), tuple(rows), len(moved), *work(moved))
