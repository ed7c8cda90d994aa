"""`msmctl plan`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from secret_manager_controller.cli.errors import ExitCode
from secret_manager_controller.cli.manifests import read_manifests
from secret_manager_controller.cli.oneshot import Planned, one_shot
from secret_manager_controller.cli.options import OneShotOptions, one_shot_options, output_option
from secret_manager_controller.cli.output import print_document
from secret_manager_controller.cli.planview import as_document, print_error, print_plan, print_summary


@click.command("plan")
@one_shot_options
@output_option("table", "json", "yaml")
@click.option(
    "--exit-code",
    "detailed",
    is_flag=True,
    help="End with 2 if there are changes, and with 3 if something needs a decision (a conflict, a prune held back).",
)
def command(what: OneShotOptions, output: str, detailed: bool) -> int:
    """Show what apply would change, without a cluster."""
    plans = asyncio.run(_plan(what))
    if output == "table":
        for planned in plans:
            print_plan(planned)
        print_summary(plans)
    else:
        print_document(as_document(plans), output=output)
        for planned in plans:
            if planned.error is not None:
                print_error(planned)
    return _exit_code(plans, detailed=detailed)


async def _plan(what: OneShotOptions) -> list[Planned]:
    manifests = read_manifests(what.files)
    async with one_shot(what) as shot:
        return [await shot.plan(manifest) for manifest in manifests]


def _exit_code(plans: Sequence[Planned], *, detailed: bool) -> ExitCode:
    if any(planned.error is not None for planned in plans):
        return ExitCode.FAILED
    found = [planned.prepared.plan for planned in plans if planned.prepared is not None] if detailed else []
    if any(plan.conflicts or plan.held for plan in found):
        return ExitCode.BLOCKED
    return ExitCode.CHANGES if any(plan.changes for plan in found) else ExitCode.OK
