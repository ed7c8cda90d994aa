"""A Git server over https on loopback: `git http-backend` behind a small server, with logins and faults.

    with GitServer(directory) as server:
        server.create("team/app")
        url = server.url("team/app")          # https://127.0.0.1:PORT/team/app.git
        server.authorization = server.basic("user", "password")

Its authority's certificate is `server.ca`. Every request is recorded with its path and Authorization header.
"""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from secret_manager_controller.testing import certificates

HOST = "127.0.0.1"
_BACKEND_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was made."""

    method: str
    path: str
    authorization: str | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that go away; standard error belongs to the tests."""


class GitServer:
    """Serves bare repositories below a directory, on a free port of 127.0.0.1.

    Args:
        directory: an empty directory for repositories and keys.

    Attributes:
        ca: the certificate that vouches for the server, PEM.
        authorization: the Authorization header that is asked for; None lets everybody in.
        redirect_to: where every request is redirected to instead of being answered.
        status: what every request is answered with instead.
        requests: what was asked for, oldest first.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        certificates.write_serving_certificate(directory, address=HOST)
        self.root = directory / "repositories"
        self.root.mkdir()
        self.ca = (directory / "ca.crt").read_bytes()
        self.authorization: str | None = None
        self.redirect_to: str | None = None
        self.status: HTTPStatus | None = None
        self.requests: list[Seen] = []
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(directory / "server.crt", directory / "server.key")
        self._server = _Server((HOST, 0), _handler_of(self))
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def origin(self) -> str:
        """The server's URL without a path."""
        return f"https://{HOST}:{self._server.server_port}"

    def url(self, name: str) -> str:
        """Return a repository's URL."""
        return f"{self.origin}/{name}.git"

    def create(self, name: str) -> Repository:
        """Make an empty repository, and a work tree to commit to it from."""
        bare, work = self.root / f"{name}.git", self.root.parent / "work" / name
        work.mkdir(parents=True)
        run("init", "--quiet", "--bare", "--initial-branch=main", str(bare), directory=self.root)
        run("init", "--quiet", "--initial-branch=main", directory=work)
        run("remote", "add", "origin", str(bare), directory=work)
        return Repository(bare, work)

    @staticmethod
    def basic(user: str, password: str) -> str:
        """Return the header of a login with a password."""
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests.append(Seen(handler.command, handler.path, handler.headers.get("Authorization")))
        body = _body(handler)
        if self.redirect_to is not None:
            _send(handler, HTTPStatus.FOUND, {"Location": self.redirect_to + handler.path}, b"")
        elif self.status is not None:
            _send(handler, self.status, {}, b"")
        elif self.authorization not in (None, handler.headers.get("Authorization")):
            _send(handler, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        else:
            self._pass_on(handler, body)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path, _, query = handler.path.partition("?")
        environment = {
            "PATH": os.defpath,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "REMOTE_ADDR": HOST,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_BACKEND_TIMEOUT,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = HTTPStatus(int(headers.pop("Status", "200").split()[0]))
        _send(handler, status, headers, content)


@dataclass(frozen=True, slots=True)
class Repository:
    """A bare repository and a work tree whose commits are pushed to it."""

    bare: Path
    work: Path

    def commit(self, files: Mapping[str, str | bytes | None], *, branch: str = "main", force: bool = False) -> str:
        """Write files (None removes one), commit and push them; return the commit."""
        if self.git("branch", "--show-current").strip() != branch:
            self.git("checkout", "--quiet", "-B", branch)
        for path, content in files.items():
            file = self.work / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        self.push(branch, force=force)
        return self.head()

    def head(self) -> str:
        """Return the commit of the work tree."""
        return self.git("rev-parse", "HEAD").strip()

    def push(self, *refs: str, force: bool = False) -> None:
        """Push branches or tags."""
        self.git("push", "--quiet", *(["--force"] if force else []), "origin", *refs)

    def tag(self, name: str, *, annotated: bool = False) -> None:
        """Tag the present commit, and push the tag."""
        self.git("tag", *(["--annotate", "--message=tag"] if annotated else []), name)
        self.push(f"refs/tags/{name}")

    def remove(self) -> None:
        """Remove the bare repository from the server."""
        shutil.rmtree(self.bare)

    def git(self, *arguments: str) -> str:
        """Run git in the work tree."""
        return run(*arguments, directory=self.work)


def run(*arguments: str, directory: Path) -> str:
    """Run git as nobody in particular, without this machine's configuration."""
    identity = ["-c", "user.name=example", "-c", "user.email=example@example.invalid", "-c", "commit.gpgsign=false"]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "file",
    }
    command = ["git", *identity, "-c", "safe.directory=*", *arguments]
    done = subprocess.run(
        command, cwd=directory, check=True, capture_output=True, text=True, env=environment, timeout=120
    )
    return done.stdout


def _handler_of(server: GitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def _answer(self) -> None:
            try:
                server.answer(self)
            except OSError:
                self.close_connection = True  # The client went away, which some tests are about.

        do_GET = do_POST = _answer  # noqa: N815 - http.server's names.

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so.
            """Keep quiet: standard error belongs to the tests."""

    return Handler


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    body = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _send(handler: BaseHTTPRequestHandler, status: HTTPStatus, headers: Mapping[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
