"""Download one artifact: bounded, to a file, and trusted only once its digest is right.

The host gets our network position and nothing else: no credentials, no cookies of other hosts, no redirects. What it
answers is not shown to anyone but as a status code.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import aiohttp
import blake3
import yarl

from secret_manager_controller.errors import AccessDenied, PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.hosts import host_matches
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.protocol import RevisionReplaced

MAX_DOWNLOAD_BYTES = 100 * 2**20  # Flux too stops at 100 MiB by default; secrets and manifests are kilobytes.
TIMEOUT = aiohttp.ClientTimeout(
    total=120,  # 100 MiB at 7 Mbit/s; a host that trickles longer must not hold a worker.
    sock_connect=10,
    sock_read=20,
)
MAX_RETRY_AFTER = 3600.0  # A host that asks for more must not silence an object for days.
_CHUNK_BYTES = 2**20  # Hashed and written at a time, in a thread: about 1 ms.

_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<value>[0-9a-f]+)")


class Hasher(Protocol):
    """What `hashlib` and `blake3` have in common."""

    @property
    def digest_size(self) -> int:
        """Bytes of the digest."""
        ...

    def update(self, data: bytes, /) -> object:
        """Hash more."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of what was hashed so far."""
        ...


HASHERS: Mapping[str, Callable[[], Hasher]] = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
    "blake3": blake3.blake3,
}
"""The digests that source-controller's `--artifact-digest-algo` can write."""
_GONE = frozenset({404, 410})


def check_digest(digest: object, *, of: str) -> str:
    """Return a digest that can be verified.

    Args:
        digest: as published, e.g. `sha256:9b74…`.
        of: what it belongs to, for the message.

    Raises:
        PermanentError: FetchFailed: it is missing, malformed or of another algorithm; an artifact that cannot be
            verified is not read.
    """
    if not isinstance(digest, str) or not digest:
        message = f"{of} publishes no digest for its artifact, which can't be verified then; Flux v2 publishes one"
        raise PermanentError(Reason.FETCH_FAILED, message)
    match = _DIGEST.fullmatch(digest)
    hasher = HASHERS.get(match["algorithm"]) if match else None
    if match is None or hasher is None or len(match["value"]) != 2 * hasher().digest_size:
        known = ", ".join(HASHERS)
        message = f"{of} publishes the digest {foreign(digest)!r}, which is malformed or not one of {known}"
        raise PermanentError(Reason.FETCH_FAILED, message)
    return digest


def check_url(url: object, *, of: str) -> yarl.URL:
    """Return an artifact's URL in the form that is also connected to, so that no two parsers can disagree on its host.

    Raises:
        PermanentError: FetchFailed: not http(s), without a host, with credentials or with bytes that no URL has.
    """
    try:
        parsed = yarl.URL(url, encoded=True) if isinstance(url, str) and _is_plain(url) else None
        usable = parsed is not None and parsed.scheme in {"http", "https"} and parsed.host and parsed.port
    except ValueError:
        usable = False
    if not usable or parsed is None or parsed.user is not None or parsed.password is not None:
        # The URL is not quoted: it may hold the very credentials that it is refused for.
        message = f"{of} publishes an artifact whose URL is not a plain http or https one"
        raise PermanentError(Reason.FETCH_FAILED, message)
    return parsed


def _is_plain(url: str) -> bool:
    return all("!" <= c <= "~" and c != "\\" for c in url)


def check_host(host: str, *, allowed_hosts: Collection[str]) -> None:
    """Refuse a host that is none of the allowed suffixes and below none of them.

    Raises:
        AccessDenied: the host is another one.
    """
    if not host_matches(host, allowed_hosts):
        raise AccessDenied(
            f"the artifact is on host {foreign(host)!r}, which is none of the allowed artifact hosts; the controller's "
            "setting ARTIFACT_HOSTS lists them, and spec.artifactHosts of a SecretManagerPolicy more in mode isolated"
        )


async def download(
    session: aiohttp.ClientSession,
    revision: Revision,
    into: Path,
    *,
    allowed_hosts: Collection[str] | None,
    timeout: aiohttp.ClientTimeout = TIMEOUT,  # noqa: ASYNC109 - it goes to the client, which tells connect from read.
    max_bytes: int = MAX_DOWNLOAD_BYTES,
) -> None:
    """Write a revision's artifact to a new file. When this returns, its digest is the published one.

    Nothing is tried twice here: the work queue does that.

    Args:
        session: shared by all downloads.
        revision: what to download.
        into: the file; it must not exist, and is the caller's to remove.
        allowed_hosts: host names, each with all below it; None for any.
        timeout: of the whole, the connection and each read.
        max_bytes: of the artifact.

    Raises:
        RevisionReplaced: DigestMismatch; FetchFailed for an artifact that is gone.
        RetryableError: FetchFailed with the host's wish for `retry_after`.
        PermanentError: InvalidArchive for an artifact above `max_bytes`; FetchFailed for a URL or digest that cannot be
            used.
        AccessDenied: the host is none of the allowed.
    """
    url = check_url(revision.url, of="the source")
    digest = check_digest(revision.digest, of="the source")
    host = foreign(url.host)
    if allowed_hosts is not None:
        check_host(url.host or "", allowed_hosts=allowed_hosts)
    try:
        async with session.get(
            url,
            allow_redirects=False,
            # What is hashed are the bytes as stored; without this, aiohttp would unpack them for a header's asking.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            timeout=timeout,
        ) as response:
            if response.status != 200:
                raise _status_error(response, host)
            computed = await _save(response, into, algorithm=digest.partition(":")[0], max_bytes=max_bytes)
    except TimeoutError:
        raise RetryableError(Reason.FETCH_FAILED, f"the artifact's host {host} did not answer in time") from None
    except aiohttp.ClientError:
        raise RetryableError(Reason.FETCH_FAILED, f"the connection to the artifact's host {host} failed") from None
    if computed != digest:
        raise RevisionReplaced(
            Reason.DIGEST_MISMATCH,
            f"the artifact from {host} is not the one that the source published: it was replaced while it was "
            f"downloaded, which the next try mends, or it was tampered with",
        )


async def _save(response: aiohttp.ClientResponse, into: Path, *, algorithm: str, max_bytes: int) -> str:
    """Stream the body to the file, and return its digest."""
    if (response.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    hasher = HASHERS[algorithm]()
    size = 0
    with await asyncio.to_thread(into.open, "xb") as file:

        def write(piece: bytes) -> None:
            hasher.update(piece)
            file.write(piece)

        pending = bytearray()
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await asyncio.to_thread(write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(write, bytes(pending))
    return f"{algorithm}:{hasher.hexdigest()}"


def _too_large(max_bytes: int) -> PermanentError:
    return PermanentError(
        Reason.INVALID_ARCHIVE,
        f"the artifact is larger than {max_bytes // 2**20} MiB; leave files out with the source's spec.ignore",
    )


def _status_error(response: aiohttp.ClientResponse, host: str) -> RetryableError:
    wish = retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
    if response.status in _GONE:
        message = f"the artifact is gone from {host} ({response.status}); the source will publish a new one"
        return RevisionReplaced(Reason.FETCH_FAILED, message, retry_after=wish)
    message = f"the artifact's host {host} answered {response.status}"
    return RetryableError(Reason.FETCH_FAILED, message, retry_after=wish)


def retry_after(header: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), at most an hour."""
    return None if header is None else _bounded(_seconds(header.strip(), now))


def _seconds(header: str, now: datetime) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds()


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)
