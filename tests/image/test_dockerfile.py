"""The Dockerfile, where no engine builds it: parsed, checked, and its Python stage replayed in a directory of its own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
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
    assert {"git", "gpg", "gpg-agent", "libseccomp2", "openssh-client", "ca-certificates"} <= set(installed)
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


def replayed(root, command):
    """Return a RUN command under another root, which takes the pinned packages from where these tests have them.

    They are the same versions with the same hashes; to download them once more would take minutes.
    """
    moved = re.sub(r"(?<![\w.])/(opt|out|src)\b", rf"{root}/\1", command).replace("--no-cache-dir ", "")
    install = re.fullmatch(r"(.+) && (\S+)/bin/pip install --quiet --require-hashes -r (\S+)", moved)
    if install is None:
        return moved
    make, environment, requirements = install.groups()
    assert (ROOT / requirements).read_text().count("--hash=sha256:") > 0
    site = f"{environment}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    return f"{make} && printf %s {shlex.quote(sysconfig.get_path('purelib'))} > {site}/pinned.pth"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Replay the Python stage under another root."""
    root = tmp_path_factory.mktemp("image")
    workdir = root
    python = f'python3() {{ {shlex.quote(sys.executable)} "$@"; }}; '
    for instruction, argument in PYTHON.steps:
        if instruction == "WORKDIR":
            workdir = root / argument.removeprefix("/")
            workdir.mkdir(parents=True)
        elif instruction == "COPY":
            *sources, target = argument.split()
            for source in sources:
                copy(ROOT / source, workdir / target / (Path(source).name if target.endswith("/") else ""))
        else:
            assert instruction == "RUN"
            command = ["sh", "-ec", python + replayed(root, argument)]
            ran = subprocess.run(command, cwd=workdir, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, (argument, ran.stdout, ran.stderr)
    return root


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


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


def test_every_verb_is_in_the_wheel(image):
    code = (
        "import secret_manager_controller.controller.main, secret_manager_controller.cli.main as m; "
        "[m.cli.get_command(None, verb) for verb in m.VERBS]; print(m.__file__)"
    )
    ran = run(image, "python3", "-c", code)
    assert ran.stderr == ""
    assert ran.stdout.startswith(str(image / "opt" / "smc"))


def test_the_wheel_prints_the_manifests_that_install_it(image):
    ran = run(image, "msmctl", "install", "--print")
    assert (ran.stderr, ran.stdout) == ("", (ROOT / "deploy" / "install.yaml").read_text())
