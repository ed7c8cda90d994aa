"""What is written where: results to stdout, notes and errors to stderr, colour and live progress to terminals only."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Literal

import click

Colour = Literal["green", "yellow", "red", "cyan"]


def printable(text: object) -> str:
    """Return foreign text fit for a terminal: one line, without control characters, escapes and direction marks."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))


def prepare() -> None:
    """Make the process's streams and loggers fit for a command line."""
    if sys.stdout is None:  # The caller closed it, with `>&-`.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it stays open as long as the process.
    for stream in (sys.stdout, sys.stderr):
        # A locale without emoji must not turn a message into a UnicodeEncodeError.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
    # Libraries log what they like, in several lines and perhaps with values; what matters is told by our errors.
    logging.getLogger().addHandler(logging.NullHandler())


def colour_wish() -> bool | None:
    """Return click's colour setting: never where NO_COLOR says so (https://no-color.org), else on terminals."""
    return False if os.environ.get("NO_COLOR") else None


def say(text: str = "", *, colour: Colour | None = None, bold: bool = False) -> None:
    """Write a line of the result."""
    click.secho(text, fg=colour, bold=bold or None)


def note(text: str) -> None:
    """Write something beside the result, to stderr."""
    click.secho(f"note: {printable(text)}", fg="yellow", err=True)


def is_interactive() -> bool:
    """Tell whether somebody can be asked: a person in front of a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def confirm(question: str) -> bool:
    """Ask, and return whether the answer is yes. Ctrl-C ends the process at once: nothing is under way yet."""
    # asyncio's own handler would only cancel the task, which waits for this answer. One of Python's would be missed
    # if the signal came just before the read begins to block; the system's default is not.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return click.confirm(question)
    finally:
        signal.signal(signal.SIGINT, before)


class LiveLine:
    """One line that is rewritten in place; on what is no terminal it does nothing."""

    def __init__(self) -> None:
        self._enabled = sys.stdout.isatty()
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line's text."""
        if self._enabled:
            sys.stdout.write(f"\r\x1b[2K{text}")
            sys.stdout.flush()
            self._shown = True

    def clear(self) -> None:
        """Remove the line, so that the next output takes its place."""
        if self._shown:
            sys.stdout.write("\r\x1b[2K")
            self._shown = False
