"""`msmctl reconcile`."""

from __future__ import annotations

import asyncio
import re

import click
from click.core import ParameterSource

from secret_manager_controller.cli.clock import Clock, SystemClock
from secret_manager_controller.cli.cluster import ObjectKey, connect
from secret_manager_controller.cli.force import recreate, tell_logs
from secret_manager_controller.cli.options import ClusterOptions, cluster_options, name_option, namespace_option
from secret_manager_controller.cli.trigger import trigger

DEFAULT_TIMEOUT = 300
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""


def _traceparent(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value and not TRACEPARENT.fullmatch(value):
        raise click.BadParameter("expected VERSION-TRACE-SPAN-FLAGS, such as 00-…-…-01", param=option)
    return value or None


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
@click.option(
    "--traceparent",
    envvar="TRACEPARENT",
    show_envvar=True,
    callback=_traceparent,
    metavar="CONTEXT",
    help="W3C trace context that the reconcile's trace continues.",
)
@cluster_options
@click.pass_context
def command(
    context: click.Context,
    name: str,
    namespace: str,
    force: bool,
    timeout: int,
    traceparent: str | None,
    where: ClusterOptions,
) -> None:
    """Have a SecretManagerConfig reconciled now."""
    if not force and context.get_parameter_source("timeout") is not ParameterSource.DEFAULT:
        raise click.UsageError("--timeout is how long --force waits; add --force or remove it")
    clock: Clock = context.obj or SystemClock()
    patience = timeout if force else None
    asyncio.run(_reconcile(ObjectKey(namespace, name), where, clock, patience=patience, traceparent=traceparent))


async def _reconcile(
    key: ObjectKey, where: ClusterOptions, clock: Clock, *, patience: int | None, traceparent: str | None
) -> None:
    async with connect(where) as kube:
        if patience is not None:
            await recreate(kube, key, clock, patience=patience)
        await trigger(kube, key, clock, traceparent=traceparent)
        if patience is not None:
            tell_logs()
