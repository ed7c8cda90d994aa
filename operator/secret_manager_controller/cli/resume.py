"""`msmctl resume`: reconcile a suspended object again."""

from __future__ import annotations

import asyncio

import click

from secret_manager_controller.cli.cluster import ObjectKey, change_object, connect
from secret_manager_controller.cli.options import ClusterOptions, cluster_options, name_option, namespace_option
from secret_manager_controller.cli.terminal import say


@click.command("resume")
@name_option
@namespace_option
@cluster_options
def command(name: str, namespace: str, where: ClusterOptions) -> None:
    """Resume a suspended SecretManagerConfig."""
    asyncio.run(_resume(ObjectKey(namespace, name), where))


async def _resume(key: ObjectKey, where: ClusterOptions) -> None:
    async with connect(where) as kube:
        failing = f"Failed to resume SecretManagerConfig '{key}'"
        await change_object(kube, key, lambda _: {"spec": {"suspend": False}}, failing=failing)
    say(f"SecretManagerConfig '{key}' is resumed; the store is compared with Git now")
