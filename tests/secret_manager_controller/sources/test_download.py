"""Downloads over real HTTP: what arrives is what was published, or nothing is believed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from secret_manager_controller.errors import AccessDenied, ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.download import (
    HASHERS,
    check_digest,
    check_host,
    check_url,
    download,
    retry_after,
)
from secret_manager_controller.sources.protocol import RevisionReplaced
from secret_manager_controller.testing.artifacts import Artifact, ArtifactServer, Fault

CANARY = b"canary-5up3rs3cr3t"
CONTENT = CANARY * 20_000


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
def artifact(server: ArtifactServer) -> Artifact:
    return server.publish_bytes(CONTENT, revision="main@sha1:1")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def fetch(
    session: aiohttp.ClientSession, revision: Revision, into: Path, *, seconds: float = 5, max_bytes: int = 2**20
) -> None:
    timeout = aiohttp.ClientTimeout(total=seconds)
    await download(session, revision, into, allowed_hosts=None, timeout=timeout, max_bytes=max_bytes)


async def refused(
    session: aiohttp.ClientSession, revision: Revision, tmp_path: Path, **options: float
) -> ControllerError:
    """Return the error of a download, once it is known to quote nothing of the artifact."""
    with pytest.raises(ControllerError) as caught:
        await fetch(session, revision, tmp_path / "artifact", **options)  # type: ignore[arg-type]
    assert CANARY.decode() not in caught.value.message
    assert revision.url.rpartition("/")[2] not in caught.value.message
    return caught.value


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "blake3"])
async def test_an_artifact_arrives(
    session: aiohttp.ClientSession, artifact: Artifact, tmp_path: Path, algorithm: str
) -> None:
    hasher = HASHERS[algorithm]()
    hasher.update(CONTENT)
    digest = f"{algorithm}:{hasher.hexdigest()}"
    await fetch(session, replace(artifact.as_revision(), digest=digest), tmp_path / "artifact")
    assert (tmp_path / "artifact").read_bytes() == CONTENT


def test_blake3_is_what_its_authors_say() -> None:
    """The first test vector of the BLAKE3 team: no input at all."""
    expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert expected == HASHERS["blake3"]().hexdigest()


async def test_large_artifacts_arrive_too(
    session: aiohttp.ClientSession, server: ArtifactServer, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 20_000
    artifact = server.publish_bytes(content, revision="main@sha1:1")
    await fetch(session, artifact.as_revision(), tmp_path / "artifact", max_bytes=len(content))
    assert content == (tmp_path / "artifact").read_bytes()


async def test_a_replaced_artifact_is_noticed(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path
) -> None:
    server.fault = Fault(body=CONTENT.replace(b"5", b"6"))
    error = await refused(session, artifact.as_revision(), tmp_path)
    assert isinstance(error, RevisionReplaced)
    assert Reason.DIGEST_MISMATCH is error.reason
    assert "replaced while it was downloaded" in error.message
    assert "tampered with" in error.message


@pytest.mark.parametrize("status", [404, 410])
async def test_a_gone_artifact_is_told(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path, status: int
) -> None:
    server.fault = Fault(status=status)
    error = await refused(session, artifact.as_revision(), tmp_path)
    assert isinstance(error, RevisionReplaced)
    assert Reason.FETCH_FAILED is error.reason
    assert f"the artifact is gone from 127.0.0.1 ({status}); the source will publish a new one" == error.message


async def test_a_withdrawn_artifact_is_gone(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path
) -> None:
    server.withdraw(artifact)
    assert "is gone" in (await refused(session, artifact.as_revision(), tmp_path)).message


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 401, 403, 429, 500, 503])
async def test_another_status_is_told_and_a_redirect_is_not_followed(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path, status: int
) -> None:
    elsewhere = server.publish_bytes(CONTENT, revision="main@sha1:1", file="elsewhere")
    server.fault = Fault(status=status, headers={"Location": elsewhere.url, "Retry-After": "7"})
    error = await refused(session, artifact.as_revision(), tmp_path)
    assert isinstance(error, RetryableError)
    assert Reason.FETCH_FAILED is error.reason
    assert f"the artifact's host 127.0.0.1 answered {status}" == error.message
    assert error.retry_after == 7.0
    assert {f"/{artifact.path}": 1} == server.requests


async def test_a_truncated_artifact_is_noticed(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path
) -> None:
    server.fault = Fault(truncate_to=1000)
    error = await refused(session, artifact.as_revision(), tmp_path)
    assert isinstance(error, RetryableError)
    assert Reason.FETCH_FAILED is error.reason


async def test_a_slow_host_is_left(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path
) -> None:
    server.fault = Fault(delay=5)
    error = await refused(session, artifact.as_revision(), tmp_path, seconds=0.2)
    assert isinstance(error, RetryableError)
    assert error.message == "the artifact's host 127.0.0.1 did not answer in time"


async def test_a_host_that_is_not_there_is_told(
    session: aiohttp.ClientSession, artifact: Artifact, tmp_path: Path
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/tree.tar.gz"
        error = await refused(session, replace(artifact.as_revision(), url=url), tmp_path)
    assert isinstance(error, RetryableError)
    assert error.message == "the connection to the artifact's host 127.0.0.1 failed"


async def test_an_artifact_above_the_limit_is_refused_before_it_is_read(
    session: aiohttp.ClientSession, artifact: Artifact, tmp_path: Path
) -> None:
    error = await refused(session, artifact.as_revision(), tmp_path, max_bytes=len(CONTENT) - 1)
    assert isinstance(error, PermanentError)
    assert Reason.INVALID_ARCHIVE is error.reason
    assert not (tmp_path / "artifact").exists()


async def test_an_endless_artifact_is_cut(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while True:
                writer.write(CANARY * 1000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/tree.tar.gz"
        error = await refused(session, Revision("r", "sha256:" + "0" * 64, url), tmp_path, max_bytes=3 * 2**20)
    assert "larger than 3 MiB" in error.message
    assert (tmp_path / "artifact").stat().st_size <= 3 * 2**20


async def test_a_content_encoding_is_not_undone(
    session: aiohttp.ClientSession, server: ArtifactServer, tmp_path: Path
) -> None:
    """The digest is of the bytes as stored, and unpacking is only ours: with its limits."""
    import gzip

    artifact = server.publish_bytes(gzip.compress(CONTENT), revision="main@sha1:1")
    server.fault = Fault(headers={"Content-Encoding": "gzip"})
    await fetch(session, artifact.as_revision(), tmp_path / "artifact")
    assert gzip.decompress((tmp_path / "artifact").read_bytes()) == CONTENT


async def test_no_other_host_is_asked(
    session: aiohttp.ClientSession, server: ArtifactServer, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(AccessDenied, match=r"'127\.0\.0\.1', which is none of the allowed artifact hosts"):
        await download(session, artifact.as_revision(), tmp_path / "a", allowed_hosts=["flux-system.svc.cluster.local"])
    assert server.requests == {}
    await download(session, artifact.as_revision(), tmp_path / "a", allowed_hosts=["cluster.local", "127.0.0.1"])


@pytest.mark.parametrize(
    "host", ["source-controller.flux-system.svc.cluster.local.", "FLUX-system.svc.cluster.local", "a.b.example.org"]
)
def test_a_host_at_or_below_an_allowed_one_is_allowed(host: str) -> None:
    check_host(host, allowed_hosts=["flux-system.svc.cluster.local", ".example.org"])


@pytest.mark.parametrize("host", ["evil-example.org", "example.org.evil", "org", "", "svc.cluster.local"])
def test_another_host_is_denied(host: str) -> None:
    with pytest.raises(AccessDenied):
        check_host(host, allowed_hosts=["flux-system.svc.cluster.local", "example.org"])


@pytest.mark.parametrize(
    "url",
    [
        "http://source-controller.flux-system.svc.cluster.local./gitrepository/ns/n/1.tar.gz",
        "https://[::1]:8443/a",
        "http://h/with%20escape?x=1",
    ],
)
def test_a_plain_url_is_kept_to_the_byte(url: str) -> None:
    assert url == str(check_url(url, of="x"))


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "file:///etc/passwd",
        "ftp://h/a",
        "gopher://h/a",
        "//h/a",
        "/a",
        "h/a",
        "http:///a",
        "http://",
        "http://user@h/a",
        "http://user:canary@h/a",
        "http://:canary@h/a",
        "http://h:99999/a",
        "http://h:x/a",
        "http://h/a b",
        "http://h/a\r\nX: y",
        "http://allowed\\@evil/a",
        "http://evil\\.allowed/a",
        "http://h/a\\b",
        "http://hö/a",
        "http://[::1/a",
    ],
)
def test_another_url_is_refused_and_not_quoted(url: object) -> None:
    with pytest.raises(PermanentError, match="not a plain http or https one") as caught:
        check_url(url, of="GitRepository a/b")
    assert Reason.FETCH_FAILED is caught.value.reason
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("digest", "reason", "words"),
    [
        (None, Reason.FETCH_FAILED, "no digest"),
        ("", Reason.FETCH_FAILED, "no digest"),
        (7, Reason.FETCH_FAILED, "no digest"),
        ("blake3:" + "0" * 62, Reason.FETCH_FAILED, "not one of sha256, sha384, sha512, blake3"),
        ("md5:" + "0" * 32, Reason.FETCH_FAILED, "malformed"),
        ("sha1:" + "0" * 40, Reason.FETCH_FAILED, "malformed"),
        ("sha256:" + "0" * 63, Reason.FETCH_FAILED, "malformed"),
        ("sha512:" + "0" * 64, Reason.FETCH_FAILED, "malformed"),
        ("sha256:" + "A" * 64, Reason.FETCH_FAILED, "malformed"),
        ("sha256:" + "0" * 64 + "\n", Reason.FETCH_FAILED, "malformed"),
        ("sha256:../../" + "0" * 58, Reason.FETCH_FAILED, "malformed"),
        ("0" * 64, Reason.FETCH_FAILED, "malformed"),
    ],
)
def test_a_digest_that_cannot_be_verified_is_refused(digest: object, reason: Reason, words: str) -> None:
    with pytest.raises(PermanentError, match=words) as caught:
        check_digest(digest, of="GitRepository a/b")
    assert reason is caught.value.reason


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("999999999999", 3600.0),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 12:01:30 -0000", 90.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds == retry_after(header, now=NOW)
