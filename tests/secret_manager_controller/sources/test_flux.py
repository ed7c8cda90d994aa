"""Flux: what a GitRepository's status means, and a commit's way from Git to a tree that is read."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from secret_manager_controller.errors import AccessDenied, PermanentError, Reason, RetryableError
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.flux import FluxSource, revision_of
from secret_manager_controller.sources.protocol import Source, SourceReference
from secret_manager_controller.sources.worktree import WorktreeSource
from secret_manager_controller.testing.artifacts import ArtifactServer, Fault, git_repository_status

DIGEST = "sha256:" + "5" * 64
GIT_REPOSITORY: dict[str, Any] = {
    "apiVersion": "source.toolkit.fluxcd.io/v1",
    "kind": "GitRepository",
    "metadata": {"namespace": "flux-system", "name": "repo", "generation": 3},
    "spec": {"url": "https://git.example.org/repo", "interval": "1m"},
    "status": {
        "observedGeneration": 3,
        "conditions": [
            {"type": "ArtifactInStorage", "status": "True"},
            {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored artifact"},
        ],
        "artifact": {"url": "http://source-controller/a.tar.gz", "digest": DIGEST, "revision": "main@sha1:6f1c"},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the object with one field, named by its path, set, or removed if the value is None."""
    result = copy.deepcopy(GIT_REPOSITORY)
    *parents, last = path.split(".")
    target = result
    for name in parents:
        target = target.setdefault(name, {})
    if value is None:
        del target[last]
    else:
        target[last] = value
    return result


def ready(status: str, reason: str = "", message: str = "") -> list[dict[str, str]]:
    return [{"type": "Ready", "status": status, "reason": reason, "message": message}]


def test_a_ready_source_has_a_revision() -> None:
    expected = Revision(revision="main@sha1:6f1c", digest=DIGEST, url="http://source-controller/a.tar.gz")
    assert expected == revision_of(GIT_REPOSITORY)


def suspended() -> dict[str, Any]:
    result = changed("spec.suspend", True)
    result["metadata"]["generation"] = 4
    return result


@pytest.mark.parametrize(
    "source",
    [
        changed("status.conditions", ready("Unknown", "Progressing", "building artifact")),
        changed("status.conditions", None),
        changed("status.observedGeneration", None),
        changed("metadata.generation", None),
        suspended(),
    ],
    ids=["at-work-on-the-next", "no-condition", "no-observed-generation", "no-generation", "suspended"],
)
def test_the_last_good_artifact_counts(source: Mapping[str, Any]) -> None:
    assert revision_of(source).digest == DIGEST


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            changed("status.conditions", ready("False", "GitOperationFailed", "auth failed")),
            "GitRepository flux-system/repo is not ready: GitOperationFailed: auth failed",
        ),
        (changed("status.conditions", ready("False")), "GitRepository flux-system/repo is not ready"),
        (changed("status.artifact", None), "has no artifact yet: Succeeded: stored artifact"),
        (changed("status", None), "GitRepository flux-system/repo has no artifact yet"),
        (changed("status", {}), "has no artifact yet"),
        (changed("status.artifact", "x"), "has no artifact yet"),
        (changed("metadata.generation", 4), "its artifact is of the old spec"),
        ({}, r"source \?/\? has no artifact yet"),
    ],
    ids=["failed", "failed-without-words", "no-artifact", "new", "empty-status", "odd-artifact", "stale", "empty"],
)
def test_a_source_that_is_not_ready_is_waited_for(source: Mapping[str, Any], words: str) -> None:
    with pytest.raises(RetryableError, match=words) as caught:
        revision_of(source)
    assert Reason.SOURCE_NOT_READY is caught.value.reason


def verified(
    status: str | None, *, kind: str = "GitRepository", verify: bool = True, **metadata: int
) -> dict[str, Any]:
    """Return a source whose signature was verified or not; `status` None has no such condition."""
    result = copy.deepcopy(GIT_REPOSITORY) | {"kind": kind}
    result["metadata"] |= metadata
    result["spec"] |= {"verify": {"mode": "HEAD", "secretRef": {"name": "keys"}}} if verify else {}
    if status is not None:
        condition = {
            "type": "SourceVerified",
            "status": status,
            "reason": "InvalidCommitSignature",
            "message": "no key",
        }
        result["status"]["conditions"].append(condition)
    return result


@pytest.mark.parametrize("kind", ["GitRepository", "OCIRepository"])
def test_a_verified_source_may_be_required(kind: str) -> None:
    assert revision_of(verified("True", kind=kind), require_verified=True).digest == DIGEST


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (verified("True", verify=False), "repo verifies no signature, .*; set the source's spec.verify"),
        (verified(None), "it has no condition SourceVerified; sign what it publishes"),
        (verified("False"), "has not verified a signature: InvalidCommitSignature: no key"),
        (verified("Unknown"), "has not verified a signature"),
        (
            verified("True", kind="Bucket"),
            "of a kind that verifies no signature.*use a GitRepository or an OCIRepository",
        ),
        (verified("True", kind="ExternalArtifact"), "of a kind that verifies no signature"),
    ],
    ids=["not-asked-for", "not-told", "failed", "unknown", "bucket", "external-artifact"],
)
def test_a_source_that_is_not_verified_is_refused_where_that_is_required(source: Mapping[str, Any], words: str) -> None:
    with pytest.raises(PermanentError, match=words) as caught:
        revision_of(source, require_verified=True)
    assert Reason.SOURCE_NOT_VERIFIED is caught.value.reason
    assert revision_of(source).digest == DIGEST


def test_a_suspended_source_with_another_spec_than_was_verified_is_no_verified_one() -> None:
    source = verified("True", generation=4)
    source["spec"]["suspend"] = True
    assert revision_of(source).digest == DIGEST
    with pytest.raises(RetryableError, match="was changed"):
        revision_of(source, require_verified=True)


def test_a_sources_message_is_capped_and_printable() -> None:
    with pytest.raises(RetryableError) as caught:
        revision_of(changed("status.conditions", ready("False", "Failed", "\x1b[31m" + "x" * 10_000)))
    assert len(caught.value.message) < 320
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("status.artifact.digest", None, Reason.FETCH_FAILED),
        ("status.artifact.digest", "sha256:x", Reason.FETCH_FAILED),
        ("status.artifact.digest", "blake3:" + "0" * 62, Reason.FETCH_FAILED),
        ("status.artifact.digest", "md5:" + "0" * 32, Reason.FETCH_FAILED),
        ("status.artifact.url", None, Reason.FETCH_FAILED),
        ("status.artifact.url", "file:///etc/passwd", Reason.FETCH_FAILED),
        ("status.artifact.url", "http://user:canary@h/a", Reason.FETCH_FAILED),
        ("status.artifact.revision", None, Reason.FETCH_FAILED),
        ("status.artifact.revision", 7, Reason.FETCH_FAILED),
    ],
)
def test_an_artifact_that_cannot_be_used_is_refused(path: str, value: object, reason: Reason) -> None:
    with pytest.raises(PermanentError, match="GitRepository flux-system/repo publishes") as caught:
        revision_of(changed(path, value))
    assert reason is caught.value.reason
    assert "canary" not in caught.value.message


# --- from Git to a tree


@dataclass(frozen=True)
class Ref:
    kind: str = "GitRepository"
    namespace: str = "flux-system"
    name: str = "repo"
    require_verified: bool = False
    source_name: str | None = None
    git_credentials: None = None
    artifact_hosts: tuple[str, ...] = ()


class Cluster:
    """Holds the one object that there is, or none."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None

    async def read(self, reference: SourceReference, *, fresh: bool = False) -> Mapping[str, Any] | None:
        ref = reference
        assert (ref.kind, ref.namespace, ref.name) == ("GitRepository", "flux-system", "repo")
        return self.object


@pytest.fixture
def server(git_repository: Path) -> Iterator[ArtifactServer]:
    with ArtifactServer(git_repository) as server:
        yield server


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SnapshotCache]:
    cache = SnapshotCache(tmp_path / "cache")
    yield cache
    await cache.aclose()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def source(cluster: Cluster, cache: SnapshotCache) -> AsyncIterator[FluxSource]:
    async with aiohttp.ClientSession() as session:
        yield FluxSource(read_object=cluster.read, session=session, cache=cache)


async def test_a_commit_becomes_a_tree(source: FluxSource, cluster: Cluster, server: ArtifactServer) -> None:
    artifact = server.publish()
    cluster.object = {**GIT_REPOSITORY, "status": git_repository_status(artifact, generation=3)}
    revision = await source.resolve(Ref())
    assert artifact.as_revision() == revision
    async with source.fetch(Ref(), revision) as tree:
        assert tree.read_file("service/app.env") == b"KEY=one\n"


async def test_twenty_objects_on_one_source_download_once(
    source: FluxSource, cluster: Cluster, server: ArtifactServer
) -> None:
    artifact = server.publish()
    cluster.object = {**GIT_REPOSITORY, "status": git_repository_status(artifact, generation=3)}

    async def one() -> bytes | None:
        async with source.fetch(Ref(), await source.resolve(Ref())) as tree:
            return tree.read_file("service/app.env")

    assert await asyncio.gather(*[one() for _ in range(20)]) == [b"KEY=one\n"] * 20
    assert {f"/{artifact.path}": 1} == server.requests


async def test_a_failed_download_is_not_remembered(source: FluxSource, server: ArtifactServer) -> None:
    revision = server.publish().as_revision()
    server.fault = Fault(status=503, headers={"Retry-After": "2"})
    with pytest.raises(RetryableError, match="answered 503"):
        async with source.fetch(Ref(), revision):
            pass
    server.fault = None
    async with source.fetch(Ref(), revision) as tree:
        assert tree.exists("service/app.env")


async def test_a_replaced_artifact_is_never_unpacked(
    source: FluxSource, server: ArtifactServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("secret_manager_controller.sources.cache.extract", lambda *_, **__: opened.append(1))
    server.fault = Fault(body=b"another")
    with pytest.raises(RetryableError, match="tampered") as caught:
        async with source.fetch(Ref(), server.publish().as_revision()):
            pass
    assert Reason.DIGEST_MISMATCH is caught.value.reason
    assert opened == []


async def test_a_source_that_does_not_exist_is_waited_for(source: FluxSource) -> None:
    with pytest.raises(RetryableError, match="GitRepository flux-system/repo does not exist") as caught:
        await source.resolve(Ref())
    assert Reason.SOURCE_NOT_FOUND is caught.value.reason


async def test_artifacts_come_from_allowed_hosts_only(
    cluster: Cluster, cache: SnapshotCache, server: ArtifactServer
) -> None:
    async with aiohttp.ClientSession() as session:
        narrow = FluxSource(read_object=cluster.read, session=session, cache=cache, allowed_hosts=["flux-system.svc"])
        with pytest.raises(AccessDenied):
            async with narrow.fetch(Ref(), server.publish().as_revision()):
                pass
        assert server.requests == {}
        async with narrow.fetch(Ref(artifact_hosts=("127.0.0.1",)), server.publish().as_revision()):
            pass


@pytest.mark.parametrize("kind", ["OCIRepository", "Bucket", "ExternalArtifact"])
def test_what_flux_publishes_is_read_alike_whatever_its_kind(kind: str) -> None:
    assert revision_of(GIT_REPOSITORY | {"kind": kind}) == revision_of(GIT_REPOSITORY)
    with pytest.raises(RetryableError, match=f"{kind} flux-system/repo has no artifact yet"):
        revision_of(changed("status.artifact", None) | {"kind": kind})


def test_both_are_sources(source: FluxSource) -> None:
    sources: list[Source] = [source, WorktreeSource(Path())]
    assert len(sources) == 2
