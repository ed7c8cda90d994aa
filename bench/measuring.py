"""What the benchmarks have in common: the real parts, steps that are told as they go, what a process used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def built(*names: str) -> list[Path]:
    """Return the paths of real parts, built where they are not yet."""
    command = [sys.executable, str(ROOT / "tools" / "build.py"), *names]
    return [
        Path(line) for line in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    ]


@contextmanager
def step(title: str) -> Iterator[None]:
    """Tell when a step begins, and how long it took."""
    print(f"{title} …", flush=True)
    started = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - started:.1f} s", flush=True)


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return the memory that a process holds."""
    return _memory(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has held."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
