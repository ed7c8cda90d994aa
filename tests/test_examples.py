"""What is shown is run: the provider of the documentation keeps the contract, outside of this repository's settings."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "provider"


def test_the_provider_that_is_shown_keeps_the_contract(tmp_path):
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider"]
    options = [
        "-o",
        "asyncio_mode=auto",
        "--rootdir",
        str(tmp_path),
        "--basetemp",
        str(tmp_path / "runs"),
        str(EXAMPLE),
    ]
    run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-4_000:]
    assert " passed" in run.stdout


def test_the_documentation_shows_the_test_as_it_is():
    shown = (ROOT / "docs" / "providers.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert shown.strip() in (EXAMPLE / "test_directory_provider.py").read_text()
