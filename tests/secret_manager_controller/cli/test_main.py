"""The command as a whole: help, exit codes, and that whatever happens is one line."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from secret_manager_controller.cli import main as main_module
from secret_manager_controller.cli.errors import CliError, ExitCode
from secret_manager_controller.cli.main import VERBS, cli
from secret_manager_controller.cli.terminal import printable

HEAVY = ("aiohttp", "kubernetes", "boto3", "cryptography", "pyrage", "pydantic", "yaml", "asyncio")
MSMCTL = [sys.executable, "-c", "from secret_manager_controller.cli.main import main; main()"]


def test_is_installed_as_msmctl():
    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "msmctl")
    assert script.value == "secret_manager_controller.cli.main:main"


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_each_verb_says_of_itself(verb):
    context = cli.make_context("msmctl", [verb, "--help"], resilient_parsing=True)
    command = cli.get_command(context, verb)
    assert command.name == verb
    assert command.help == VERBS[verb]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_no_verb_and_nothing_heavy(arguments):
    code = (
        "import sys; from secret_manager_controller.cli.main import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout.startswith("Usage: msmctl" if arguments == ["--help"] else "msmctl 0.")


@pytest.mark.parametrize("verb", ["list", "status", "reconcile"])
def test_the_cluster_verbs_import_no_cloud_sdk_and_no_cryptography(verb):
    code = (
        f"import sys, secret_manager_controller.cli.{verb}\n"
        "print([m for m in ('boto3', 'botocore', 'pyrage', 'secret_manager_controller.decrypt', 'moto') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["list", "--bad"], "No such option '--bad'"),
        (["status"], "Missing option '--name' / '-n'"),
        (["list", "-o", "xml"], "Invalid value for '--output' / '-o'"),
        (["reconcile", "-n", "../../../secrets/x"], "is no Kubernetes name"),
        (["reconcile", "-n", "x", "-N", "a/b"], "is no Kubernetes name"),
        (["reconcile", "-n", "x?limit=1"], "is no Kubernetes name"),
        (["list", "-N", ""], "is no Kubernetes name"),
        (["list", "-N", "a.b"], "is no Kubernetes name"),
        (["status", "-n", "a" * 254], "is no Kubernetes name"),
        (["plan", "-f", "x"], "Missing option '--source'"),
    ],
)
def test_a_wrong_command_line_ends_with_64(arguments, told):
    """2 would be taken for "there are changes" by whoever runs `plan --exit-code`."""
    result = CliRunner().invoke(cli, arguments, prog_name="msmctl")
    assert result.exit_code == 64
    assert told in result.stderr
    assert result.stdout == ""


@pytest.fixture
def failing(monkeypatch):
    """Return a function that lets `msmctl list` raise an error, and gives the result."""

    def run(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("secret_manager_controller.cli.list._list", fail)
        return CliRunner().invoke(cli, ["list"], prog_name="msmctl")

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliError("it failed"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (SystemExit(ExitCode.TERMINATED), ExitCode.TERMINATED),
        (BrokenPipeError(32, "Broken pipe"), ExitCode.BROKEN_PIPE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_end_has_its_exit_code(failing, error, code):
    result = failing(error)
    assert result.exit_code == code
    assert "Traceback" not in result.stderr


def test_a_fault_of_ours_is_told_by_type_and_place_never_by_its_text(failing):
    result = failing(RuntimeError("password=hunter2"))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: internal error (RuntimeError at test_main.py:")
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.stderr


def test_errors_are_one_line_whatever_is_in_them(failing):
    assert failing(CliError("a\nb\x1b[2J\u2028c")).stderr == "Error: a b?[2J c\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode 🔄", "plain ünïcode 🔄"),
        ("\x1b[31m", "?[31m"),
        ("a\r\nb\tc", "a  b c"),
        ("\x9b31m \x07 \x7f", "?31m ? ?"),
        ("\u202e\u2066 \ud800", "?? ?"),
        (5, "5"),
    ],
)
def test_printable_leaves_nothing_that_a_terminal_obeys(text, expected):
    assert printable(text) == expected


def msmctl(*arguments, **options):
    return subprocess.run([*MSMCTL, *arguments], check=False, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def environment(kubeconfig):
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}


def test_a_reader_that_has_had_enough_is_no_error(api, environment, reference_object):
    api.put(reference_object)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        done = msmctl("list", stdout=broken, env=environment)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_told_in_one_line(api, environment, reference_object):
    api.put(reference_object)
    with Path("/dev/full").open("w") as full:
        done = msmctl("list", stdout=full, env=environment)
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


def test_a_closed_stdout_is_no_error(environment):
    shell = f"exec {' '.join(map(repr, MSMCTL))} list >&-"
    done = subprocess.run(["sh", "-c", shell], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "note: no SecretManagerConfigs in any namespace\n")


def test_a_locale_without_emoji_gets_question_marks(api, environment, reference_object):
    api.put(reference_object)
    environment |= {"PYTHONIOENCODING": "latin-1"}
    key = ("-n", "idam-dev-secrets", "-N", "pricewhisperer")
    done = msmctl("reconcile", *key, stdout=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("? Triggering reconciliation for")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_command_at_once_and_quietly(api, environment, number, code):
    asked = []

    def hang(*_):
        asked.append(True)
        time.sleep(1)

    api.before = hang
    process = subprocess.Popen([*MSMCTL, "list"], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not asked:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=10)
    assert (process.returncode, told.strip()) == (code, "")


def test_colours_are_off_when_no_color_is_set(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert main_module.terminal.colour_wish() is False
    monkeypatch.setenv("NO_COLOR", "")
    assert main_module.terminal.colour_wish() is None
