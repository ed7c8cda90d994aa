"""A local directory as a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.sources.worktree import WorktreeSource

Git = Callable[..., str]


@dataclass(frozen=True)
class Ref:
    kind: str = "GitRepository"
    namespace: str = "n"
    name: str = "n"
    require_verified: bool = False
    source_name: str | None = None
    git_credentials: None = None
    artifact_hosts: tuple[str, ...] = ()


async def revision(directory: Path) -> str:
    return (await WorktreeSource(directory).resolve(Ref())).revision


async def test_a_clean_worktree_is_its_commit(git_repository: Path, git: Git) -> None:
    commit = git(git_repository, "rev-parse", "HEAD").strip()
    assert commit == await revision(git_repository)
    assert commit == await revision(git_repository / "service")


@pytest.mark.parametrize("change", ["service/app.env", "service/new.env"], ids=["modified", "untracked"])
async def test_a_changed_worktree_says_so(git_repository: Path, git: Git, change: str) -> None:
    commit = git(git_repository, "rev-parse", "HEAD").strip()
    (git_repository / change).write_bytes(b"KEY=two\n")
    assert f"{commit}-dirty" == await revision(git_repository)


async def test_a_change_elsewhere_does_not_count(git_repository: Path, git: Git) -> None:
    (git_repository / "elsewhere").write_bytes(b"")
    assert git(git_repository, "rev-parse", "HEAD").strip() == await revision(git_repository / "service")


async def test_a_directory_without_git_is_a_worktree(tmp_path: Path) -> None:
    assert await revision(tmp_path) == "worktree"


async def test_a_repository_without_a_commit_is_a_worktree(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "--quiet")
    assert await revision(tmp_path) == "worktree"


async def test_a_machine_without_git_is_served(git_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert await revision(git_repository) == "worktree"


async def test_a_git_that_hangs_is_left(git_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secret_manager_controller.sources.worktree.GIT_TIMEOUT", 0.2)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/git").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert await revision(git_repository) == "worktree"


async def test_neither_the_environment_nor_the_repository_decides_what_git_runs(
    git_repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    script = tmp_path / "monitor"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o700)
    git(git_repository, "config", "core.fsmonitor", str(script))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(script))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(script))
    commit = git(git_repository, "rev-parse", "HEAD").strip()
    marker.unlink(missing_ok=True)
    assert commit == await revision(git_repository)
    assert not marker.exists()


async def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="is not a directory") as caught:
        await revision(tmp_path / "missing")
    assert Reason.PATH_NOT_FOUND is caught.value.reason


async def test_the_directory_is_read_as_it_is(git_repository: Path) -> None:
    source = WorktreeSource(git_repository)
    resolved = await source.resolve(Ref())
    assert ("", git_repository.as_uri()) == (resolved.digest, resolved.url)
    (git_repository / "service/app.env").write_bytes(b"KEY=two\n")
    async with source.fetch(Ref(), resolved) as tree:
        assert (git_repository, resolved) == (tree.root, tree.revision)
        assert tree.read_file("service/app.env") == b"KEY=two\n"
        with pytest.raises(PermanentError, match="is a symbolic link"):
            tree.read_file("service/link.env")
