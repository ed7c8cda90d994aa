"""Files in memory for one command."""

import os
import subprocess
import sys

import pytest

from secret_manager_controller.sources.git.private import PREFIX, private_directory, sweep_private_directories


def test_files_are_their_owners_alone_and_go_with_the_block(tmp_path):
    with private_directory({"key": b"canary"}, base=tmp_path) as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "key").stat().st_mode & 0o777 == 0o600
        assert (directory / "key").read_bytes() == b"canary"
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), private_directory({"key": b"canary"}, base=tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_lives_stays(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from secret_manager_controller.sources.git.private import private_directory
with private_directory({{"key": b"canary"}}, base=Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run(
        [sys.executable, "-c", script], check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    (left,) = tmp_path.iterdir()
    assert sweep_private_directories(base=tmp_path) == 0  # It may be one that is just being made.
    os.utime(left, (0, 0))
    with private_directory({}, base=tmp_path) as living:
        os.utime(living, (0, 0))
        assert sweep_private_directories(base=tmp_path) == 1
        assert list(tmp_path.iterdir()) == [living]


def test_a_link_of_that_name_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / f"{PREFIX}x").symlink_to(target)
    os.utime(target, (0, 0))
    assert sweep_private_directories(base=tmp_path) == 0
    assert (target / "kept").exists()
