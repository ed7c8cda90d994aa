"""`msmctl suspend`: leave an object's secrets as they are until it is resumed; free one that nobody can clean up."""

from __future__ import annotations

import asyncio

import click

from secret_manager_controller.cli.cluster import ObjectKey, change_object, connect
from secret_manager_controller.cli.options import ClusterOptions, cluster_options, name_option, namespace_option
from secret_manager_controller.cli.terminal import note, say
from secret_manager_controller.cli.view import block
from secret_manager_controller.kube import Json
from secret_manager_controller.model.annotations import FINALIZER


@click.command("suspend")
@name_option
@namespace_option
@click.option(
    "--finalizer",
    is_flag=True,
    help="Remove our finalizer too: the object can be deleted without a controller, and the store stays as it is.",
)
@cluster_options
def command(name: str, namespace: str, finalizer: bool, where: ClusterOptions) -> None:
    """Suspend a SecretManagerConfig: nothing is reconciled until it is resumed."""
    asyncio.run(_suspend(ObjectKey(namespace, name), where, finalizer=finalizer))


async def _suspend(key: ObjectKey, where: ClusterOptions, *, finalizer: bool) -> None:
    async with connect(where) as kube:
        failing = f"Failed to suspend SecretManagerConfig '{key}'"
        await change_object(kube, key, lambda body: suspension(body, finalizer=finalizer), failing=failing)
    say(f"SecretManagerConfig '{key}' is suspended" + (" and has no finalizer of ours" if finalizer else ""))
    note("a GitOps tool that applies the object may undo this: set spec.suspend in Git too")


def suspension(body: Json, *, finalizer: bool) -> Json:
    """Return the merge patch that suspends an object, and frees it of our finalizer if that is wanted."""
    patch: dict[str, Json] = {"spec": {"suspend": True}}
    kept = [name for name in block(body, "metadata").get("finalizers") or () if name != FINALIZER]
    return patch | ({"metadata": {"finalizers": kept}} if finalizer else {})
