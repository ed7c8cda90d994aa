"""A stand-in for Flux's source-controller: serves commits of a local Git repository as artifacts over HTTP on loopback.

    with ArtifactServer(repository) as server:
        artifact = server.publish()
        status = git_repository_status(artifact)

Artifacts are as Flux builds them where a consumer can tell: a gzip-compressed tar of regular files and directories
(symbolic links left out), the same bytes for the same commit, named by a `sha256:` digest and a revision
`branch@sha1:commit`. Faults are set on demand, to see what a consumer does about them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from secret_manager_controller.model.snapshot import Revision

_CHUNK_BYTES = 16 * 1024
_LAST_UPDATE = "2026-01-01T00:00:00Z"  # Fixed, so that two runs publish the same status.


@dataclass(frozen=True, slots=True)
class Artifact:
    """One published artifact, with the fields that Flux writes into `status.artifact`."""

    url: str
    path: str
    digest: str
    revision: str
    size: int

    def as_revision(self) -> Revision:
        """Return it as the controller's own type."""
        return Revision(revision=self.revision, digest=self.digest, url=self.url)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with an answer.

    Attributes:
        status: answered instead of 200, with an empty body.
        headers: sent as well, e.g. Retry-After or Location.
        body: sent instead of the artifact: it was replaced while someone downloaded it.
        truncate_to: the connection is closed after so many bytes, although more were announced.
        delay: seconds to wait before each 16 KiB.
    """

    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    truncate_to: int | None = None
    delay: float = 0.0


class ArtifactServer:
    """Serves artifacts on a free port of 127.0.0.1, in threads of its own.

    Args:
        repository: the Git repository whose commits `publish` serves; None if only `publish_bytes` is used.
        namespace: of the GitRepository whose artifacts these are; a part of their paths.
        name: likewise.

    Attributes:
        fault: applied to every answer; None for none.
        requests: how often each path was asked for.
    """

    def __init__(
        self, repository: Path | None = None, *, namespace: str = "flux-system", name: str = "repository"
    ) -> None:
        self._repository = repository
        self._folder = f"gitrepository/{namespace}/{name}"
        self._artifacts: dict[str, bytes] = {}
        self._stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.fault: Fault | None = None
        self.requests: Counter[str] = Counter()

    def start(self) -> Self:
        """Listen; return the server itself."""
        self._stopping.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the port, and end answers that are under way."""
        if self._server is not None and self._thread is not None:
            self._stopping.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's base URL."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, commit: str = "HEAD") -> Artifact:
        """Serve a commit, and return what Flux would publish for it.

        Args:
            commit: anything that `git rev-parse` knows. The branch of the revision is the one that is checked out.
        """
        if self._repository is None:
            raise RuntimeError("the server was made without a repository")
        identity = _git(self._repository, "rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
        branch = _git(self._repository, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        prefix = "" if branch == "HEAD" else f"{branch}@"
        content = _as_flux_packs(_git(self._repository, "archive", "--format=tar", identity))
        return self.publish_bytes(content, revision=f"{prefix}sha1:{identity}", file=f"{identity}.tar.gz")

    def publish_bytes(self, content: bytes, *, revision: str, file: str = "artifact.tar.gz") -> Artifact:
        """Serve any bytes as an artifact."""
        path = f"{self._folder}/{file}"
        self._artifacts[f"/{path}"] = content
        return Artifact(
            url=f"{self.url}/{path}",
            path=path,
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            revision=revision,
            size=len(content),
        )

    def withdraw(self, artifact: Artifact) -> None:
        """Stop serving an artifact, as Flux does with old ones: 404 from now on."""
        del self._artifacts[f"/{artifact.path}"]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests[handler.path] += 1
        fault = self.fault or Fault()
        content = self._artifacts.get(handler.path)
        status = HTTPStatus.NOT_FOUND if content is None else fault.status
        body = b"" if content is None or status != HTTPStatus.OK else content if fault.body is None else fault.body
        handler.send_response(status)
        for header, value in fault.headers.items():
            handler.send_header(header, value)
        handler.send_header("Content-Type", "application/gzip")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for start in range(0, len(body[: fault.truncate_to]), _CHUNK_BYTES):
            if self._stopping.wait(fault.delay):
                break
            handler.wfile.write(body[: fault.truncate_to][start : start + _CHUNK_BYTES])
        handler.close_connection = handler.close_connection or fault.truncate_to is not None


def git_repository_status(artifact: Artifact, *, generation: int = 1) -> dict[str, Any]:
    """Return the status that source-controller writes into a GitRepository once it has stored an artifact."""
    message = f"stored artifact for revision '{artifact.revision}'"
    return {
        "observedGeneration": generation,
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": "Succeeded",
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": _LAST_UPDATE,
            }
            for kind in ("Ready", "ArtifactInStorage")
        ],
        "artifact": {
            "url": artifact.url,
            "path": artifact.path,
            "digest": artifact.digest,
            "revision": artifact.revision,
            "size": artifact.size,
            "lastUpdateTime": _LAST_UPDATE,
        },
    }


def _handler_of(server: ArtifactServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                server.answer(self)
            except ConnectionError:
                self.close_connection = True  # The client went away, which some tests are about.

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so.
            """Keep quiet: standard error belongs to the tests."""

    return Handler


def _git(repository: Path, *arguments: str) -> bytes:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": os.devnull}
    # The repository is the caller's own, whoever owns the files.
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60).stdout


def _as_flux_packs(archive: bytes) -> bytes:
    """Return the tar's regular files and directories, with nothing in it that changes from run to run, compressed."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in source:
            if not (member.isreg() or member.isdir()):
                continue
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mode = member.type, member.size, 0o755 if member.isdir() else 0o644
            target.addfile(clean, source.extractfile(member))
    return packed.getvalue()
