"""The command `msmctl`: finds the verb, and turns whatever happens into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from secret_manager_controller import __version__
from secret_manager_controller.cli import terminal
from secret_manager_controller.cli.errors import ExitCode

VERBS = {
    "apply": "Make the store equal to a directory, once and without a cluster.",
    "check": "Check the cluster, the CRDs, the sources and the controller's rights.",
    "install": "Print the manifests that install the controller.",
    "migrate": "Print the v1 form of SecretManagerConfigs in an older form.",
    "list": "List SecretManagerConfigs.",
    "plan": "Show what apply would change, without a cluster.",
    "policy": "See what SecretManagerPolicies grant.",
    "reconcile": "Have a SecretManagerConfig reconciled now.",
    "resume": "Resume a suspended SecretManagerConfig.",
    "shards": "Show which replica works on which namespaces.",
    "suspend": "Suspend a SecretManagerConfig: nothing is reconciled until it is resumed.",
    "status": "Show the status of a SecretManagerConfig.",
}
"""Each verb with its line of help, so that `msmctl --help` imports none of them."""


class Msmctl(click.Group):
    """A group whose commands are imported when they are asked for, and whose errors are one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature.
        """Return the verbs."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's.
        """Import a verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"secret_manager_controller.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's.
        """Write the list of verbs."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; in standalone mode exit with an `ExitCode` whatever happens."""
        extra.setdefault("color", terminal.colour_wish())
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        code: int | str | None
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else ExitCode.OK
        except click.UsageError as error:
            error.show()
            code = ExitCode.USAGE
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = ExitCode.INTERRUPTED
        except SystemExit as error:
            # Ours, or click's own for a reader that has had enough, as `head` has: that one is always 1.
            code = ExitCode.BROKEN_PIPE if error.code == 1 else error.code
        except OSError as error:
            code = _output_failed(error)
        except Exception as error:  # noqa: BLE001 - the last net: a fault of ours is told by type and place only.
            _tell_fault(error)
            code = ExitCode.FAILED
        sys.exit(code)


def _output_failed(error: OSError) -> ExitCode:
    """Tell that the result could not be written, e.g. to a full disk; not where its reader has had enough."""
    # What is still buffered must not fail again when the interpreter flushes it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    click.echo(f"Error: the output cannot be written: {error.strerror or type(error).__name__}", err=True)
    return ExitCode.FAILED


def _tell_fault(error: Exception) -> None:
    """Write one line about a fault of ours; its text and its frames' variables may hold a value and are left out."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - pathlib is not needed else.
    click.echo(f"Error: internal error ({type(error).__name__} at {where}); please report it", err=True)


@click.group(
    cls=Msmctl,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 and 3 from plan --exit-code, 64 for a wrong command line.",
)
@click.version_option(__version__, prog_name="msmctl", message="%(prog)s %(version)s")
def cli() -> None:
    """See and trigger what the Secret Manager Controller does, or do it once without a cluster."""


def main() -> None:
    """Run `msmctl`."""
    terminal.prepare()
    signal.signal(signal.SIGTERM, _terminate)
    cli.main(prog_name="msmctl")


def _terminate(*_: object) -> NoReturn:
    """Leave by the front door, so that the kubeconfig's temporary files, which may be private keys, are removed."""
    sys.exit(ExitCode.TERMINATED)


if __name__ == "__main__":
    main()
