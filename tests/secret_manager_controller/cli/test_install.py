"""`msmctl install --print` prints deploy/install.yaml, from the wheel."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from secret_manager_controller.cli.errors import ExitCode
from secret_manager_controller.cli.main import cli

MANIFEST = Path(__file__).parents[3] / "deploy" / "install.yaml"


def run(*arguments):
    return CliRunner().invoke(cli, ["install", *arguments])


def test_the_manifests_are_printed_as_they_are():
    ran = run("--print")
    assert (ran.exit_code, ran.stdout) == (0, MANIFEST.read_text())


def test_the_image_is_set_and_nothing_else():
    image = f"registry.example/smc@sha256:{'0' * 64}"
    printed, plain = (
        list(yaml.safe_load_all(text)) for text in (run("--print", "--image", image).stdout, MANIFEST.read_text())
    )
    (container,) = next(each for each in plain if each["kind"] == "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    container["image"] = image
    assert printed == plain


@pytest.mark.parametrize("arguments", [(), ("--print", "--image", "a b"), ("--print", "--image", "a\n  b: c")])
def test_without_print_or_with_no_image_nothing_is_printed(arguments):
    ran = run(*arguments)
    assert ran.exit_code == ExitCode.USAGE
    assert "apiVersion" not in ran.stdout
