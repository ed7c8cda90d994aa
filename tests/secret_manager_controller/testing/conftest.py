"""The real parts, each built or found on first use."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[3] / "tools" / "build.py"


@pytest.fixture(scope="session")
def tool(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Return a function that gives the path of a real part by its name in tools/pins.toml.

    Under pytest-xdist several workers may ask at once: tools/build.py locks, so that a part is built once.
    """
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    @functools.cache
    def path(name: str) -> Path:
        # A build takes minutes, and its progress on stderr is for whoever waits.
        with capture.global_and_fixture_disabled():
            command = [sys.executable, str(BUILD), name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            pytest.exit(f"{name} cannot be had; tools/build.py says why", returncode=done.returncode)
        return Path(done.stdout.strip())

    return path
