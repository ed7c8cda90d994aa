"""The layout that keeps the standard library's `operator` in sight."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("root", ["operator", "sharding", "telemetry"])
def test_a_source_root_is_no_package(root):
    """A package called `operator` would shadow the standard library's module for `python -m …` at the root."""
    assert not (ROOT / root / "__init__.py").exists()
    assert len([path for path in (ROOT / root).iterdir() if (path / "__init__.py").exists()]) == 1


def test_no_folder_of_the_tests_is_a_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("safe", ["", "1"], ids=["with the folder on the path", "as in the image"])
def test_the_standard_librarys_operator_is_found_from_the_root(safe):
    code = "import operator, secret_manager_controller; print(operator.itemgetter(0)('ok'))"
    environment = {"PYTHONSAFEPATH": safe} if safe else {}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "o\n"
