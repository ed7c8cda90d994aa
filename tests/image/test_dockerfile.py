"""The Dockerfile, where no engine builds it: parsed, checked, and its Python stage replayed in a directory of its own."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


@dataclass
class Stage:
    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction):
        return [argument for found, argument in self.steps if found == instruction]


def stages():
    """Return the arguments before the first stage, and the stages."""
    lines = re.sub(r"\\\n\s*", "", TEXT).splitlines()
    before, found = {}, []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            found.append(Stage(base, name))
        elif not found:
            assert instruction == "ARG", line
            key, _, value = argument.partition("=")
            before[key] = value
        else:
            found[-1].steps.append((instruction, argument.strip()))
    return before, found


ARGUMENTS, (KUSTOMIZE, PYTHON, FINAL) = stages()
ENVIRONMENT = dict(shlex.split(part)[0].partition("=")[::2] for part in FINAL.all("ENV")[0].split())


def test_every_base_is_an_argument_with_a_version_and_may_be_a_digest():
    for stage in (KUSTOMIZE, PYTHON, FINAL):
        name = re.fullmatch(r"\$\{(\w+)\}", stage.base)[1]
        assert re.search(r":\d+\.\d+", ARGUMENTS[name]), name
    assert (KUSTOMIZE.name, PYTHON.name, FINAL.base) == ("kustomize", "python", PYTHON.base)


def test_kustomize_is_the_pinned_one():
    pins = tomllib.loads((ROOT / "tools" / "pins.toml").read_text())["kustomize"]
    assert f" {pins['package']}" in KUSTOMIZE.all("RUN")[0]
    module = (ROOT / "tools" / "kustomize" / "go.mod").read_text()
    assert f"{pins['package']} v{pins['version']}" in module
    go = re.search(r"^go (\d+\.\d+)", module, re.MULTILINE)[1]
    assert f":{go}" in ARGUMENTS["GO_IMAGE"]


def test_the_container_is_nobody_and_takes_no_code_from_where_it_stands():
    assert FINAL.all("USER") == ["65532:65532"]
    assert FINAL.steps.index(("USER", "65532:65532")) > FINAL.steps.index(("RUN", FINAL.all("RUN")[-1]))
    assert ENVIRONMENT["PYTHONSAFEPATH"] == "1"
    assert json.loads(FINAL.all("ENTRYPOINT")[0]) == ["/opt/smc/bin/secret-manager-controller"]  # No shell.
    values = (ROOT / "helm" / "secret-manager-controller" / "templates" / "_helpers.tpl").read_text()
    assert "runAsUser: 65532" in values


def test_what_the_programs_are_called_for_is_installed():
    installed = FINAL.all("RUN")[0].split()
    assert {"git", "gpg", "gpg-agent", "openssh-client", "ca-certificates"} <= set(installed)
    assert "--no-install-recommends" in installed


def test_everything_that_is_copied_is_there_and_not_ignored():
    rules = (ROOT / ".dockerignore").read_text().split()
    for stage in (KUSTOMIZE, PYTHON):
        for argument in stage.all("COPY"):
            *sources, _ = argument.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(
                    rule[0] == "!" and (source == rule[1:] or source.startswith(rule[1:] + "/")) for rule in rules
                )


def ignored(directory, names):
    return [name for name in names if fnmatch.fnmatch(name, "__pycache__")]


@pytest.fixture(scope="module")
def image(tmp_path_factory, tool):
    """Replay the Python stage under another root, and put the final stage's files there."""
    root = tmp_path_factory.mktemp("image")
    tool("etcd")  # This test runs where the real parts are had: it installs from the package index.

    def moved(command):
        return re.sub(r"(?<![\w.])/(opt|out|src)\b", rf"{root}/\1", command)

    workdir = root
    for instruction, argument in PYTHON.steps:
        if instruction == "WORKDIR":
            workdir = Path(moved(argument))
            workdir.mkdir(parents=True)
        elif instruction == "COPY":
            *sources, target = argument.split()
            for source in sources:
                to = workdir / target / (Path(source).name if target.endswith("/") else "")
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, to)
        else:
            assert instruction == "RUN"
            python = f'python3() {{ {shlex.quote(sys.executable)} "$@"; }}; '
            ran = subprocess.run(
                ["sh", "-ec", python + moved(argument).replace("--no-cache-dir ", "")],
                cwd=workdir,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, (argument, ran.stdout, ran.stderr)
    return root


def run(image, program, *arguments):
    environment = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath, "HOME": str(image)}
    command = [image / "opt/smc/bin" / program, *arguments]
    return subprocess.run(command, cwd=image, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_three_packages_and_nothing_else(image):
    (wheel,) = (image / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    packages = {"secret_manager_controller", "lease_sharding", "controller_telemetry"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages


def test_the_entry_point_starts_and_says_what_is_missing(image):
    ran = run(image, "secret-manager-controller")
    assert (ran.returncode, ran.stderr) == (1, "secret-manager-controller: there is no kubeconfig at ~/.kube/config\n")
    assert run(image, "msmctl", "--version").stdout.startswith("msmctl ")


def test_every_module_is_there_but_for_test_servers_and_no_installer_is_left(image):
    code = (
        "import boto3, google.cloud.secretmanager, azure.keyvault.secrets, kopf, pyrage, re2, "
        "secret_manager_controller.controller.main, secret_manager_controller.cli.main as m; "
        "[m.cli.get_command(None, verb) for verb in m.VERBS]"
    )
    assert run(image, "python3", "-c", code).stderr == ""
    assert run(image, "python3", "-c", "import pip").returncode == 1
    assert run(image, "python3", "-c", "import pytest").returncode == 1
