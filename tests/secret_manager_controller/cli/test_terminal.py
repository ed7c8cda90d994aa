"""What is different on a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from secret_manager_controller.cli.terminal import LiveLine, is_interactive

ASKING = """
from secret_manager_controller.cli.main import main
from secret_manager_controller.providers.registry import PROVIDERS
from secret_manager_controller.testing.store import FakeProvider, FakeStore
store = FakeStore()
PROVIDERS["aws"] = lambda *_: FakeProvider(store)
main()
"""


PATIENCE = 30  # Seconds; a busy machine needs some for the imports.


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, *arguments, **environment):
        self._master, slave = pty.openpty()
        command = [sys.executable, "-c", ASKING, *map(str, arguments)]
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = subprocess.Popen(command, env={**os.environ, "TERM": "xterm", **environment}, **streams)
        os.close(slave)
        self.shown = ""

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read()

    def _read(self):
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, self.shown
        try:
            part = os.read(self._master, 4096)
        except OSError:  # Linux says EIO when the other side is closed.
            part = b""
        self.shown += part.decode()
        return bool(part)

    def type(self, text):
        os.write(self._master, text.encode())

    def end(self):
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(timeout=10)


@pytest.fixture
def start(write_file, worktree, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    source = worktree(KEY="1")

    def run(**environment):
        terminal = Terminal("apply", "-f", write_file(), "--source", source, **environment)
        terminal.wait_for("Apply this? [y/N]: ")
        return terminal

    return run


def test_somebody_is_asked_in_colour(start):
    terminal = start()
    terminal.type("y\n")
    assert terminal.end() == 0
    assert "\x1b[32m  + create   app-KEY\x1b[0m" in terminal.shown
    assert "1 created" in terminal.shown


def test_no_color_is_honoured(start):
    terminal = start(NO_COLOR="1")
    terminal.type("n\n")
    assert terminal.end() == 1
    assert "\x1b" not in terminal.shown
    assert "note: nothing was applied" in terminal.shown


def test_ctrl_c_at_the_question_ends_at_once_and_applies_nothing(start):
    """asyncio alone would wait for the answer."""
    terminal = start()
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == -signal.SIGINT  # A shell calls it 130.
    assert "created" not in terminal.shown
    assert "Traceback" not in terminal.shown


def test_a_live_line_is_rewritten_in_place_and_removed(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = LiveLine()
    line.clear()
    line.show("1s")
    line.show("2s")
    line.clear()
    assert capsys.readouterr().out == "\r\x1b[2K1s\r\x1b[2K2s\r\x1b[2K"


def test_a_live_line_is_nothing_without_a_terminal(capsys):
    line = LiveLine()
    line.show("1s")
    line.clear()
    assert capsys.readouterr().out == ""


def test_nobody_is_asked_without_a_terminal():
    assert not is_interactive()
