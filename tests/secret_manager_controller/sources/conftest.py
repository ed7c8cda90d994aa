"""Archives made by hand, so that they can hold what no tool would write."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from secret_manager_controller.sources.archive import Extracted, extract
from secret_manager_controller.sources.tarstream import DEFAULT_LIMITS, ArchiveLimits

Member = tuple[str, bytes] | tarfile.TarInfo


def pack(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    """Return a tar.gz of files, given as name and content, and of whatever a TarInfo says."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(plain.getvalue(), mtime=0)


@pytest.fixture(name="pack")
def pack_fixture() -> Callable[..., bytes]:
    return pack


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., tuple[Path, Extracted]]:
    """Extract an archive into a directory of its own, and check what must hold for each, refused or not."""

    def run(content: bytes, limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[Path, Extracted]:
        into = tmp_path / "box" / "tree"
        into.parent.mkdir(exist_ok=True)
        try:
            extracted = extract(io.BytesIO(content), into, limits=limits)
        except BaseException:
            assert list(into.parent.iterdir()) == []
            raise
        finally:
            assert {"box"} == {path.name for path in tmp_path.iterdir()}
        return into, extracted

    return run


@pytest.fixture
def git_repository(tmp_path: Path) -> Path:
    """A repository with one commit on `main`."""
    root = tmp_path / "repository"
    (root / "service").mkdir(parents=True)
    (root / "service/app.env").write_bytes(b"KEY=one\n")
    (root / "service/link.env").symlink_to("app.env")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message=one")
    return root


def git(root: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": os.devnull, **identity}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(name="git")
def git_fixture() -> Callable[..., str]:
    return git
