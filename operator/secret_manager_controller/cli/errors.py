"""How a command ends: the exit codes, and the errors that the verbs raise.

    click.ClickException
    └── CliError        something failed
        └── NotFound    there is no such object

`main` tells each of them in one line on stderr, which begins with `Error:`.
"""

from __future__ import annotations

import enum

import click

from secret_manager_controller.cli.terminal import printable


class ExitCode(enum.IntEnum):
    """What `msmctl` ends with; docs/msmctl.md lists them."""

    OK = 0
    FAILED = 1
    """Something failed, or was not done completely."""
    CHANGES = 2
    """`plan --exit-code`: there are changes to apply; as terraform's -detailed-exitcode."""
    BLOCKED = 3
    """`plan --exit-code`: something needs a decision: a conflict, or more to prune than the bound allows."""
    USAGE = 64
    """sysexits.h's EX_USAGE. Not click's 2, which a pipeline would take for changes."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143
    """128 and the signal's number, as shells have it."""


class CliError(click.ClickException):
    """A command failed.

    Args:
        message: what failed, and what mends it; foreign text in it need not be printable.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class NotFound(CliError):  # noqa: N818 - the reference calls it so.
    """There is no such object."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"Resource not found: {what}; {mend}")
