"""What a program in the sandbox can do, and that it can do nothing else. The program is Python, which can try anything."""

import os
import socket
import sys
from pathlib import Path

import pytest

from secret_manager_controller.render.launcher import EXIT_NOT_STARTED
from secret_manager_controller.render.sandbox import Limits, run

PYTHON = Path(sys.executable).resolve()


@pytest.fixture
def attempt(tmp_path):
    """Return a function that runs Python code in the sandbox."""

    def run_code(code, **limits):
        return run(PYTHON, ("-I", "-c", code), directory=tmp_path, limits=Limits(**limits))

    return run_code


def test_what_is_asked_for_is_done(attempt, tmp_path):
    (tmp_path / "file").write_text("content")
    finished = attempt("import sys; sys.stdout.write(open('file').read()); sys.stderr.write('told'); sys.exit(3)")
    assert (finished.code, finished.output, finished.errors, finished.exceeded) == (3, b"content", b"told", None)


def test_threads_work_for_go_is_made_of_them(attempt):
    code = "import threading; t = threading.Thread(target=print, args=('ran',)); t.start(); t.join()"
    assert attempt(code).output == b"ran\n"


def test_nothing_is_inherited(attempt, monkeypatch, tmp_path):
    monkeypatch.setenv("CANARY", "from outside")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        code = "import os; print(sorted(os.environ)); print(len(os.listdir('/proc/self/fd')))"
        # Three pipes, and the descriptor that lists them.
        expected = b"['GOMAXPROCS', 'GOMEMLIMIT', 'GOTRACEBACK', 'HOME', 'LC_ALL']\n4\n"
        assert attempt(code).output == expected


REFUSED = (
    "import socket; socket.socket(socket.AF_INET)",
    "import socket; socket.socket(socket.AF_INET6)",
    "import socket; socket.socket(socket.AF_UNIX)",
    "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "import socket; socket.socketpair()",
    "import os; os.fork()",
    "import subprocess; subprocess.run(['/bin/true'])",
    "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "import os; os.kill(os.getppid(), 0)",
    "import os; os.pidfd_open(os.getppid())",
    "open('made', 'w')",
    "open('there', 'w')",
    "open('there', 'ab', 0).write(b'x')",
    "import os; os.unlink('there')",
    "import os; os.rename('there', 'elsewhere')",
    "import os; os.mkdir('made')",
    "import os; os.symlink('there', 'made')",
    "import os; os.chmod('there', 0o777)",
    "import os; os.truncate('there', 0)",
)
NUMBERS = {"io_uring_setup": 425, "ptrace": 101, "process_vm_readv": 310, "bpf": 321}
"""What Python has no function for, on x86-64."""


def test_everything_else_is_refused(attempt, tmp_path):
    (tmp_path / "there").write_text("as it was")
    finished = attempt(
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"for code in {REFUSED!r}:\n"
        "    try:\n        exec(code)\n"
        "    except OSError as error:\n        print('refused', code)\n"
        "    else:\n        print('done', code)"
    )
    assert finished.output.decode().splitlines() == [f"refused {code}" for code in REFUSED]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there", "as it was")]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86-64's")
def test_system_calls_around_the_library_are_refused(attempt):
    code = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        f"for number in {list(NUMBERS.values())}: print(c.syscall(number, 1, 0), ctypes.get_errno())"
    )
    assert attempt(code).output.split(b"\n")[:-1] == [b"-1 13"] * len(NUMBERS)


def test_a_server_on_loopback_is_out_of_reach(attempt):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert attempt(code).code == 1
        with pytest.raises(TimeoutError):
            server.accept()


def test_who_hangs_is_killed(attempt):
    finished = attempt("import time; print('begun', flush=True); time.sleep(600)", seconds=1)
    assert (finished.code, finished.exceeded) == (-9, "did not end within 1 seconds")


def test_who_closes_its_pipes_and_hangs_is_killed(attempt):
    finished = attempt("import os, time; os.close(1); os.close(2); time.sleep(600)", seconds=1)
    assert (finished.code, finished.exceeded) == (-9, "did not end within 1 seconds")


def test_who_eats_memory_fails(attempt):
    finished = attempt("x = bytearray(256 << 20)", memory=128 << 20)
    assert (finished.code, b"MemoryError" in finished.errors) == (1, True)


def test_who_writes_without_end_is_killed(attempt):
    finished = attempt("while True: print('x' * 1000)", output=1 << 20)
    assert (finished.code, finished.output, finished.exceeded) == (-9, b"", "wrote more than 1 MiB")


def test_complaints_without_end_are_read_and_dropped(attempt):
    finished = attempt("import sys; [sys.stderr.write('x' * 1000) for _ in range(1000)]")
    assert (finished.code, len(finished.errors)) == (0, 64 << 10)


def test_a_program_that_is_not_there_is_told_apart(tmp_path):
    finished = run(tmp_path / "none", (), directory=tmp_path, limits=Limits())
    assert finished.code == EXIT_NOT_STARTED


def test_what_it_wrote_is_not_printed(attempt):
    assert "canary" not in repr(attempt("import sys; print('canary'); sys.stderr.write('canary')"))


def test_the_kernel_would_end_it_before_the_controller(attempt):
    assert attempt("print(open('/proc/self/oom_score_adj').read())").output.strip() == b"1000"
