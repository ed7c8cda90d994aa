"""`msmctl reconcile`."""

from __future__ import annotations

import asyncio

import click
from click.core import ParameterSource

from secret_manager_controller.cli.clock import Clock, SystemClock
from secret_manager_controller.cli.cluster import ObjectKey, connect
from secret_manager_controller.cli.force import recreate, tell_logs
from secret_manager_controller.cli.options import ClusterOptions, cluster_options, name_option, namespace_option
from secret_manager_controller.cli.trigger import trigger

DEFAULT_TIMEOUT = 300


@click.command("reconcile")
@name_option
@namespace_option
@click.option("--force", is_flag=True, help="Delete the object and wait until GitOps has made it anew; then reconcile.")
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long --force waits.",
)
@cluster_options
@click.pass_context
def command(
    context: click.Context, name: str, namespace: str, force: bool, timeout: int, where: ClusterOptions
) -> None:
    """Have a SecretManagerConfig reconciled now."""
    if not force and context.get_parameter_source("timeout") is not ParameterSource.DEFAULT:
        raise click.UsageError("--timeout is how long --force waits; add --force or remove it")
    clock: Clock = context.obj or SystemClock()
    asyncio.run(_reconcile(ObjectKey(namespace, name), where, clock, patience=timeout if force else None))


async def _reconcile(key: ObjectKey, where: ClusterOptions, clock: Clock, *, patience: int | None) -> None:
    async with connect(where) as kube:
        if patience is not None:
            await recreate(kube, key, clock, patience=patience)
        await trigger(kube, key, clock)
        if patience is not None:
            tell_logs()
