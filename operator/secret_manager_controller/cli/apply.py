"""`msmctl apply`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.cli.errors import ExitCode
from secret_manager_controller.cli.manifests import STDIN, read_manifests
from secret_manager_controller.cli.oneshot import OneShot, Planned, one_shot
from secret_manager_controller.cli.options import OneShotOptions, one_shot_options
from secret_manager_controller.cli.planview import print_plan, print_report, print_summary
from secret_manager_controller.cli.terminal import confirm, is_interactive, note, say


@click.command("apply")
@one_shot_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask; without a terminal nobody is asked anyway.")
def command(what: OneShotOptions, yes: bool) -> int:
    """Make the store equal to a directory, once and without a cluster."""
    return asyncio.run(_apply(what, ask=not yes and STDIN not in what.files and is_interactive()))


async def _apply(what: OneShotOptions, *, ask: bool) -> ExitCode:
    manifests = read_manifests(what.files)
    async with one_shot(what) as shot:
        plans = [await shot.plan(manifest) for manifest in manifests]
        for planned in plans:
            print_plan(planned)
        print_summary(plans)
        to_do = [planned for planned in plans if planned.prepared is not None and planned.prepared.plan.changes]
        if to_do and ask and not confirm("Apply this?"):
            note("nothing was applied")
            return ExitCode.FAILED
        done = await _carry_out(shot, to_do)
    if isinstance(done, ExitCode):
        return done
    return ExitCode.OK if done and not any(_stands_in_the_way(planned) for planned in plans) else ExitCode.FAILED


async def _carry_out(shot: OneShot, plans: Sequence[Planned]) -> bool | ExitCode:
    """Apply the plans one after the other; return whether all went well, or how a signal ended it."""
    complete = True
    with _stopped_by_signals() as stop:
        for planned in plans:
            try:
                report = await shot.apply(planned, stop.fence)
            except OwnershipLost:
                note("stopped: what was begun was finished, the rest was not begun; `msmctl plan` shows what is left")
                return stop.exit_code
            if planned is plans[0]:
                say()
            print_report(planned, report)
            complete = complete and not report.failures and not report.left
    return complete


def _stands_in_the_way(planned: Planned) -> bool:
    """Tell whether something of an object was not applied although its source asks for it."""
    plan = planned.prepared.plan if planned.prepared is not None else None
    return planned.error is not None or (plan is not None and bool(plan.conflicts or plan.held))


class _Stop:
    """A fence that signals close, so that no write begins after one and none is cut off."""

    def __init__(self) -> None:
        self.fence = SoleMemberFence()
        self.exit_code = ExitCode.INTERRUPTED

    def signalled(self, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        self.fence.revoke()


@contextmanager
def _stopped_by_signals() -> Iterator[_Stop]:
    """Let SIGINT and SIGTERM close the fence; each a second time does what it always does."""
    stop, loop = _Stop(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    codes = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}

    def handle(number: signal.Signals) -> None:
        stop.signalled(codes[number])
        restore(number)

    def restore(number: signal.Signals) -> None:
        if loop.remove_signal_handler(number):
            signal.signal(number, before[number])

    for number in codes:
        loop.add_signal_handler(number, handle, number)
    try:
        yield stop
    finally:
        for number in codes:
            restore(number)
