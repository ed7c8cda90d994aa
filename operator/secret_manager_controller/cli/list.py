"""`msmctl list`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from secret_manager_controller.cli.clock import Clock, SystemClock
from secret_manager_controller.cli.cluster import connect, list_objects
from secret_manager_controller.cli.options import NAMESPACE_NAME, ClusterOptions, cluster_options, output_option
from secret_manager_controller.cli.output import Body, for_reading, print_document, print_table
from secret_manager_controller.cli.terminal import note, printable
from secret_manager_controller.cli.view import (
    age_of,
    block,
    ready_colour,
    ready_of,
    revision_of,
    source_of,
    status_of,
)

# The spaces are the least width of a column; tabulate adds two to it, and two between columns.
HEADERS = ("NAME".ljust(26), "NAMESPACE".ljust(17), "READY".ljust(12), "SECRETS SYNCED")
WIDE_HEADERS = (*HEADERS, "REASON", "SOURCE", "REVISION", "AGE")


@click.command("list")
@click.option("--namespace", "-N", type=NAMESPACE_NAME, help="Namespace to list; all of them by default.")
@output_option("table", "wide", "json", "yaml")
@cluster_options
@click.pass_obj
def command(clock: Clock | None, namespace: str | None, output: str, where: ClusterOptions) -> None:
    """List SecretManagerConfigs."""
    asyncio.run(_list(namespace, output, where, clock or SystemClock()))


async def _list(namespace: str | None, output: str, where: ClusterOptions, clock: Clock) -> None:
    async with connect(where) as kube:
        if output in ("json", "yaml"):
            items = await list_objects(kube, namespace, for_reading)
            document = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
            print_document(document, output=output)
            return
        now = clock.now()
        rows = await list_objects(kube, namespace, lambda body: row_of(body, now=now))
    if not rows:
        note(f"no SecretManagerConfigs in {'any namespace' if namespace is None else f'namespace {namespace!r}'}")
        return
    wide = output == "wide"
    print_table(WIDE_HEADERS if wide else HEADERS, rows if wide else [row[: len(HEADERS)] for row in rows])


def row_of(body: Body, *, now: float) -> Sequence[str]:
    """Return the cells of an object in the wide table; the other one has the first of them."""
    metadata, spec, status = block(body, "metadata"), block(body, "spec"), status_of(body)
    ready = ready_of(status)
    told = "Unknown" if ready is None else printable(ready.status)
    suspended = spec.get("suspend") is True
    return (
        printable(metadata.get("name")),
        printable(metadata.get("namespace")),
        click.style(told, fg=ready_colour(told)),
        str(status.secrets_synced),
        "Suspended" if suspended else printable(ready.reason if ready is not None else "NotReconciled"),
        source_of(spec),
        revision_of(status, short=True) or "",
        age_of(body, now=now),
    )
