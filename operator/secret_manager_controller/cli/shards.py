"""`msmctl shards`: who works on what, and what another number of replicas would change."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from lease_sharding.assign import shard_of
from lease_sharding.leases import GROUP, parse_lease
from lease_sharding.observe import LIVING
from lease_sharding.settings import MAX_SHARDS
from lease_sharding.snapshot import MemberRow, ShardRow, Snapshot, snapshot_of_leases
from secret_manager_controller.cli.clock import Clock, SystemClock
from secret_manager_controller.cli.cluster import connect, list_objects
from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.cli.forecast import Forecast, forecast
from secret_manager_controller.cli.options import (
    NAMESPACE_NAME,
    ClusterOptions,
    cluster_options,
    controller_namespace_option,
    output_option,
)
from secret_manager_controller.cli.output import Body, print_document, print_table
from secret_manager_controller.cli.terminal import printable
from secret_manager_controller.cli.view import duration
from secret_manager_controller.kube import LEASE_GROUP, LEASES, KubeClient, KubeError

SESSION_SECONDS = 10.0
"""Of a session whose Lease does not tell: the default."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """What a cluster's replicas share.

    Attributes:
        group: members and shards.
        objects: how many objects each namespace has.
    """

    group: Snapshot
    objects: Mapping[str, int]

    def shard_of(self, namespace: str) -> int:
        """Return a namespace's shard."""
        return shard_of(namespace, len(self.group.shards))

    def objects_in(self, shard: int) -> int:
        """Return how many objects a shard has."""
        return sum(count for namespace, count in self.objects.items() if self.shard_of(namespace) == shard)

    def objects_of(self, member: str) -> int:
        """Return how many objects a member works on."""
        return sum(self.objects_in(row.shard) for row in self.group.shards if row.owner == member)


@click.group("shards", invoke_without_command=True)
@click.option("--for", "namespace", metavar="NAMESPACE", type=NAMESPACE_NAME, help="Show who works on this namespace.")
@output_option("table", "json")
@controller_namespace_option
@cluster_options
@click.pass_context
def command(
    ctx: click.Context, namespace: str | None, output: str, controller_namespace: str, where: ClusterOptions
) -> None:
    """Show which replica works on which namespaces."""
    if ctx.invoked_subcommand is None:
        clock: Clock = ctx.obj or SystemClock()
        asyncio.run(_show(namespace, output, controller_namespace, where, clock))


@command.command("simulate")
@click.option("--replicas", required=True, type=click.IntRange(1, MAX_SHARDS), help="How many replicas there would be.")
@output_option("table", "json")
@controller_namespace_option
@cluster_options
@click.pass_obj
def simulate(clock: Clock | None, replicas: int, output: str, controller_namespace: str, where: ClusterOptions) -> None:
    """Show the balance that another number of replicas would have, and what would move."""
    asyncio.run(_simulate(replicas, output, controller_namespace, where, clock or SystemClock()))


async def _show(
    namespace: str | None, output: str, controller_namespace: str, where: ClusterOptions, clock: Clock
) -> None:
    async with connect(where) as kube:
        sharding = await read_sharding(kube, controller_namespace, now=clock.now())
    if namespace is not None:
        _show_one(sharding, namespace, output=output, now=clock.now())
    elif output == "json":
        print_document(document(sharding), output=output)
    else:
        now = clock.now()
        print_table(
            ("SHARD", "OWNER", "SINCE", "OBJECTS", "UNOWNED"),
            [shard_cells(row, sharding.objects_in(row.shard), now=now) for row in sharding.group.shards],
        )
        click.echo()
        print_table(
            ("MEMBER", "STATE", "SINCE", "RENEWED", "SHARE", "OWNED", "OBJECTS"),
            [member_cells(row, sharding.objects_of(row.name), now=now) for row in sharding.group.members],
        )


async def _simulate(replicas: int, output: str, controller_namespace: str, where: ClusterOptions, clock: Clock) -> None:
    async with connect(where) as kube:
        sharding = await read_sharding(kube, controller_namespace, now=clock.now())
    owners = {row.shard: row.owner for row in sharding.group.shards if row.owner is not None}
    living = [row.name for row in sharding.group.members if row.state in LIVING]
    told = forecast(owners, living, replicas=replicas, shards=len(sharding.group.shards), objects=sharding.objects)
    if output == "json":
        print_document(forecast_document(told), output=output)
        return
    print_table(
        ("MEMBER", "SHARDS", "NAMESPACES", "OBJECTS"),
        [(printable(row.name), str(row.shards), str(row.namespaces), str(row.objects)) for row in told.members],
    )
    click.echo(
        f"\nFrom {told.replicas_now} to {replicas} replicas {told.moved_shards} of {told.shards} shards would move, "
        f"with {told.moved_namespaces} namespaces and {told.moved_objects} objects."
    )


async def read_sharding(kube: KubeClient, controller_namespace: str, *, now: float) -> Sharding:
    """Return what the replicas of a controller share.

    Raises:
        CliError: there are none, or the API server refused.
    """
    selector = urllib.parse.quote(f"{GROUP}={LEASE_GROUP}", safe="")
    try:
        body = await kube.get(f"{LEASES.url(controller_namespace)}?labelSelector={selector}") or {}
    except KubeError as error:
        mend = f"have the verb list on leases.{LEASES.group} in namespace {controller_namespace} granted"
        if error.status != 403:
            mend = "check with `kubectl cluster-info` whether it can be reached"
        raise CliError(f"Failed to list Leases: {error.message}; {mend}") from error
    leases = [parse_lease(item) for item in body.get("items") or ()]
    group = snapshot_of_leases(
        leases, group=LEASE_GROUP, now=datetime.fromtimestamp(now, UTC), duration=SESSION_SECONDS
    )
    if group is None:
        raise CliError(
            f"no controller has run in namespace {controller_namespace!r}: it has no Leases of its replicas; "
            "--controller-namespace names another"
        )
    namespaces = await list_objects(kube, None, lambda item: str(item["metadata"]["namespace"]))
    return Sharding(group, Counter(namespaces))


def _show_one(sharding: Sharding, namespace: str, *, output: str, now: float) -> None:
    row = sharding.group.shards[sharding.shard_of(namespace)]
    objects = sharding.objects.get(namespace, 0)
    if output == "json":
        told = {"namespace": namespace, "namespaceObjects": objects, **shard_document(row, sharding)}
        print_document(told, output=output)
        return
    if row.owner is None:
        served = f"which nobody has owned for {duration(row.unowned_for or 0)}"
    else:
        served = f"which {printable(row.owner)} has owned for {_age(row.since, now=now)}"
    click.echo(f"Namespace {namespace} ({objects} objects) is in shard {row.shard}, {served}")


def shard_cells(row: ShardRow, objects: int, *, now: float) -> tuple[str, ...]:
    """Return a shard's cells in the table."""
    unowned = "" if row.unowned_for is None else duration(row.unowned_for)
    owner = "<none>" if row.owner is None else printable(row.owner)
    since = "" if row.owner is None else _age(row.since, now=now)
    return str(row.shard), owner, since, str(objects), click.style(unowned, fg="red") if unowned else ""


def member_cells(row: MemberRow, objects: int, *, now: float) -> tuple[str, ...]:
    """Return a member's cells in the table."""
    renewed = f"{row.renewed_ago:.1f}s ago"
    since = _age(row.since, now=now)
    return printable(row.name), str(row.state), since, renewed, str(row.share), str(row.owned), str(objects)


def document(sharding: Sharding) -> Body:
    """Return everything as a document."""
    return {
        "group": sharding.group.group,
        "shards": [shard_document(row, sharding) for row in sharding.group.shards],
        "members": [
            {
                "name": row.name,
                "state": str(row.state),
                "since": _time(row.since),
                "renewedSecondsAgo": round(row.renewed_ago, 3),
                "share": row.share,
                "owned": row.owned,
                "objects": sharding.objects_of(row.name),
            }
            for row in sharding.group.members
        ],
    }


def shard_document(row: ShardRow, sharding: Sharding) -> Body:
    """Return a shard as a document."""
    return {
        "shard": row.shard,
        "state": str(row.state),
        "owner": row.owner,
        "since": _time(row.since),
        "epoch": row.epoch,
        "objects": sharding.objects_in(row.shard),
        "unownedSeconds": None if row.unowned_for is None else round(row.unowned_for, 3),
    }


def forecast_document(told: Forecast) -> Body:
    """Return a forecast as a document."""
    return {
        "replicas": {"now": told.replicas_now, "then": len(told.members)},
        "moved": {"shards": told.moved_shards, "namespaces": told.moved_namespaces, "objects": told.moved_objects},
        "members": [
            {"name": row.name, "shards": row.shards, "namespaces": row.namespaces, "objects": row.objects}
            for row in told.members
        ],
    }


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _age(since: datetime | None, *, now: float) -> str:
    return "<unknown>" if since is None else duration(now - since.timestamp())
