"""`msmctl status`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import click

from secret_manager_controller.cli.cluster import ObjectKey, connect, read_object
from secret_manager_controller.cli.options import (
    ClusterOptions,
    cluster_options,
    name_option,
    namespace_option,
    output_option,
)
from secret_manager_controller.cli.output import Body, for_reading, print_document, print_table
from secret_manager_controller.cli.terminal import printable, say
from secret_manager_controller.cli.view import (
    block,
    field,
    ready_colour,
    revision_of,
    source_of,
    status_of,
    store_of,
)
from secret_manager_controller.model.status import Condition, Status


@click.command("status")
@name_option
@namespace_option
@output_option("table", "wide", "json", "yaml")
@cluster_options
def command(name: str, namespace: str, output: str, where: ClusterOptions) -> None:
    """Show the status of a SecretManagerConfig."""
    asyncio.run(_status(ObjectKey(namespace, name), output, where))


async def _status(key: ObjectKey, output: str, where: ClusterOptions) -> None:
    async with connect(where) as kube:
        body = await read_object(kube, key, failing=f"Failed to read SecretManagerConfig '{key}'")
    if output in ("json", "yaml"):
        print_document(for_reading(body), output=output)
        return
    _print_status(key, body)
    if output == "wide":
        _print_inventory(status_of(body))


def _print_status(key: ObjectKey, body: Body) -> None:
    status = status_of(body)
    say(f"Status for SecretManagerConfig '{key}':", bold=True)
    _print_section("Metadata", _metadata_lines(body))
    _print_section("Spec", _spec_lines(block(body, "spec")))
    _print_section("Status", _status_lines(status))
    say()
    say("Conditions:", bold=True)
    for condition in status.conditions:
        _print_condition(condition)
    if not status.conditions:
        say("  (none)")


def _print_section(title: str, lines: Iterator[tuple[str, object]]) -> None:
    say()
    say(f"{title}:", bold=True)
    for name, value in lines:
        say(f"  {name}: {value}")


def _metadata_lines(body: Body) -> Iterator[tuple[str, object]]:
    metadata = block(body, "metadata")
    yield "Name", field(metadata, "name")
    yield "Namespace", field(metadata, "namespace")
    yield "Generation", field(metadata, "generation")
    if (since := field(metadata, "deletionTimestamp")) is not None:
        yield "Deletion Requested", since


def _spec_lines(spec: Body) -> Iterator[tuple[str, object]]:
    secrets = block(spec, "secrets")
    yield store_of(spec)
    yield "Environment", field(secrets, "environment")
    yield "Source", source_of(spec)
    optional = {
        "Kustomize Path": field(secrets, "kustomizePath"),
        "Base Path": field(secrets, "basePath"),
        "Secret Prefix": field(secrets, "prefix"),
        "Secret Suffix": field(secrets, "suffix"),
        "Suspended": "True" if spec.get("suspend") is True else None,
    }
    yield from ((name, value) for name, value in optional.items() if value is not None)


def _status_lines(status: Status) -> Iterator[tuple[str, object]]:
    optional = {
        "Observed Generation": status.observed_generation,
        "Last Reconcile Time": status.last_reconcile_time,
    }
    yield from ((name, printable(value)) for name, value in optional.items() if value is not None)
    yield "Secrets Synced", status.secrets_synced
    if (revision := revision_of(status)) is not None:
        yield "Revision", revision


def _print_condition(condition: Condition) -> None:
    told = printable(condition.status)
    say(f"  {printable(condition.type)}: {click.style(told, fg=_colour(condition))}")
    say(f"    Reason: {printable(condition.reason)}")
    say(f"    Message: {printable(condition.message)}")
    say(f"    Last Transition: {printable(condition.last_transition_time)}")


def _colour(condition: Condition) -> str:
    # Of the other conditions, Reconciling and Stalled, True is no good news.
    return ready_colour(condition.status) if condition.type == "Ready" else "yellow"


def _print_inventory(status: Status) -> None:
    say()
    say("Secrets:", bold=True)
    print_table(
        ("NAME", "VERSION"),
        [(printable(entry.name), printable(entry.version)) for entry in status.inventory.values()],
    )
