"""The stand-in for source-controller does what Flux does, and breaks on demand."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from secret_manager_controller.sources.flux import revision_of
from secret_manager_controller.testing.artifacts import ArtifactServer, Fault, git_repository_status


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "a/b/run.sh").chmod(0o755)
    (root / "a/link").symlink_to("b")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message=one")
    return root


def git(root: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": os.devnull, **identity}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def server(repository: Path) -> Iterator[ArtifactServer]:
    with ArtifactServer(repository) as server:
        yield server


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        body: bytes = response.read()
    return body


def test_an_artifact_holds_the_commit_without_its_links(server: ArtifactServer, repository: Path) -> None:
    artifact = server.publish()
    content = get(artifact.url)
    assert f"main@sha1:{git(repository, 'rev-parse', 'HEAD')}" == artifact.revision
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == artifact.digest
    assert len(content) == artifact.size
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["a", "a/b", "a/b/run.sh"]
        assert {0} == {member.mtime for member in archive}


def test_one_commit_is_always_the_same_bytes(server: ArtifactServer, repository: Path) -> None:
    first = server.publish()
    os.utime(repository / "a/b/run.sh", (0, 0))
    assert first == server.publish()


def test_each_commit_has_its_own_artifact(server: ArtifactServer, repository: Path) -> None:
    first = server.publish()
    (repository / "a/new").write_bytes(b"x")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=two")
    second = server.publish()
    assert first.digest != second.digest
    assert first == server.publish("HEAD~1")
    assert get(first.url) != get(second.url)


def test_a_detached_head_has_no_branch(server: ArtifactServer, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    assert f"sha1:{git(repository, 'rev-parse', 'HEAD')}" == server.publish().revision


def test_an_unknown_commit_is_an_error(server: ArtifactServer) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        server.publish("nothing")


def test_the_status_is_one_that_the_controller_reads(server: ArtifactServer) -> None:
    artifact = server.publish()
    status = git_repository_status(artifact, generation=7)
    source = {"kind": "GitRepository", "metadata": {"generation": 7}, "status": status}
    assert artifact.as_revision() == revision_of(source)
    assert {"url", "digest", "revision", "path", "lastUpdateTime", "size"} == status["artifact"].keys()
    assert [condition["type"] for condition in status["conditions"]] == ["Ready", "ArtifactInStorage"]


def test_requests_are_counted_by_path(server: ArtifactServer) -> None:
    artifact = server.publish()
    get(artifact.url)
    get(artifact.url)
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(f"{server.url}/nothing")
    caught.value.close()
    assert {f"/{artifact.path}": 2, "/nothing": 1} == server.requests


def test_a_withdrawn_artifact_is_not_found(server: ArtifactServer) -> None:
    artifact = server.publish()
    server.withdraw(artifact)
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(artifact.url)
    caught.value.close()


def test_a_status_with_its_headers(server: ArtifactServer) -> None:
    artifact = server.publish()
    server.fault = Fault(status=503, headers={"Retry-After": "9"})
    with pytest.raises(urllib.error.HTTPError, match="503") as caught:
        get(artifact.url)
    assert caught.value.headers["Retry-After"] == "9"
    caught.value.close()


def test_another_body(server: ArtifactServer) -> None:
    artifact = server.publish()
    server.fault = Fault(body=b"another")
    assert get(artifact.url) == b"another"
    server.fault = None
    assert artifact.size == len(get(artifact.url))


def test_a_truncated_body(server: ArtifactServer) -> None:
    artifact = server.publish()
    server.fault = Fault(truncate_to=10)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(artifact.url)
    assert len(caught.value.partial) == 10


def test_stopping_ends_a_slow_answer(repository: Path) -> None:
    server = ArtifactServer(repository).start()
    artifact = server.publish()
    server.fault = Fault(delay=60)
    failures: list[type[BaseException]] = []

    def read() -> None:
        try:
            get(artifact.url)
        except (http.client.HTTPException, OSError) as error:
            failures.append(type(error))

    reader = threading.Thread(target=read)
    reader.start()
    while not server.requests:
        time.sleep(0.005)
    began = time.monotonic()
    server.stop()
    reader.join(5)
    assert time.monotonic() - began < 2
    assert [http.client.IncompleteRead] == failures


def test_what_cannot_be_served_is_told(repository: Path) -> None:
    with ArtifactServer() as server, pytest.raises(RuntimeError, match="without a repository"):
        server.publish()
    with pytest.raises(RuntimeError, match="not started"):
        ArtifactServer(repository).publish()
