"""Children log, stop in bounded time and do not outlive their parent."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from secret_manager_controller.testing import processes

SLEEP = ["sleep", "60"]


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is not just waiting to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert processes.start(["echo", "after"], log=log).wait() == 0
    assert log.read_text() == "before\nafter\n"


def test_a_program_gets_the_environment_that_was_given_and_none_of_ours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert processes.start(["env"], log=log, environment={"ONE": "1"}).wait() == 0
    variables = dict(line.split("=", 1) for line in log.read_text().splitlines())
    # The launcher's shell may tell where it was started, and how deep.
    assert variables.keys() - {"PWD", "OLDPWD", "SHLVL", "_"} == {"ONE"}


def test_a_program_that_is_missing_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not an executable program: '/does/not/exist'"):
        processes.start(["/does/not/exist"], log=tmp_path / "log")


def test_a_program_that_ends_on_sigterm_is_not_killed(tmp_path: Path) -> None:
    process = processes.start(SLEEP, log=tmp_path / "log")
    processes.stop(process, grace=30)
    assert process.returncode == -15


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do /bin/sleep 1; done"], log=log)
    while "ready" not in log.read_text():
        time.sleep(0.01)
    processes.stop(process, grace=0.05)
    assert process.returncode == -9


def test_stopping_what_has_ended_does_nothing(tmp_path: Path) -> None:
    process = processes.start(["true"], log=tmp_path / "log")
    process.wait()
    processes.stop(process, grace=0)
    assert process.returncode == 0


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(processes.start(SLEEP, log=tmp_path / "log")))
    thread.start()
    thread.join()
    [process] = started
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    processes.stop(process, grace=30)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only Linux has a parent-death signal")
@pytest.mark.parametrize("delay", [0, 1], ids=["", "even before the launcher has asked for the signal"])
def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path, delay: int) -> None:
    setpriv = tmp_path / "setpriv"
    setpriv.write_text(f'#!/bin/sh\n/bin/sleep {delay}\nexec {shutil.which("setpriv")} "$@"\n')
    setpriv.chmod(0o755)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from secret_manager_controller.testing import processes\n"
        "print(processes.start(['sleep', '60'], log=Path(sys.argv[1])).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("one\ntwo\n", "one\ntwo", id="short"),
        pytest.param("".join(f"{n}\n" for n in range(9_999)), "\n".join(map(str, range(9_979, 9_999))), id="long"),
    ],
)
def test_the_tail_of_a_log_is_its_last_twenty_lines(tmp_path: Path, text: str, expected: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    assert processes.tail(log) == expected


def test_a_reserved_port_is_given_to_nobody_else_but_can_be_shared() -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(processes.reserved_port("127.0.0.1")) for _ in range(100)]
        assert len(set(ports)) == 100
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", ports[0]))
        server.listen()
        stack.enter_context(socket.create_connection(("127.0.0.1", ports[0]), timeout=10))


def test_the_launcher_is_done_without_where_it_lacks_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BusyBox' setpriv knows no --pdeathsig."""
    fake = tmp_path / "setpriv"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    processes._setpriv.cache_clear()
    try:
        assert processes.start(["true"], log=tmp_path / "log").wait() == 0
    finally:
        processes._setpriv.cache_clear()


class TestTemporaryDirectory:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def test_what_a_killed_process_left_is_removed_and_what_others_use_stays(self, tmp_path: Path) -> None:
        code = (
            "import contextlib, os, secret_manager_controller.testing.processes as p\n"
            "with p.temporary_directory('dead') as directory:\n"
            "    (directory / 'file').touch()\n"
            "    os.kill(os.getpid(), 9)"
        )
        environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
        [left] = tmp_path.iterdir()
        with processes.temporary_directory("one") as one:
            assert not left.exists()
            with processes.temporary_directory("two") as two:
                assert sorted(tmp_path.iterdir()) == sorted([one, two])
        assert list(tmp_path.iterdir()) == []

    def test_it_stays_for_the_reader_of_an_error_that_names_a_file_in_it(self) -> None:
        with (
            pytest.raises(OSError, match="the log"),
            processes.temporary_directory("kept", kept_after=(OSError,)) as kept,
        ):
            raise OSError("see the log")
        assert kept.exists()
        with processes.temporary_directory("next"):
            assert not kept.exists()
