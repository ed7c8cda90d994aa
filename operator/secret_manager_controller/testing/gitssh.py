"""A Git server over ssh on loopback: asyncssh, which lets one key in and runs `git-upload-pack`.

with GitSshServer(root) as server:        # root holds bare repositories
    url = server.url("team/app")          # ssh://git@127.0.0.1:PORT/team/app.git
    server.client_key, server.known_hosts # what a client needs
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import asyncssh

HOST = "127.0.0.1"


class GitSshServer:
    """Serves the bare repositories below a directory to who has `client_key`, in a thread of its own.

    Attributes:
        client_key: the private key that is let in, as OpenSSH writes it.
        known_hosts: the line that a client knows this server by.
        commands: what clients asked to be run.
        connections: how many came, let in or not.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._client = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key: bytes = self._client.export_private_key("openssh")
        self.commands: list[str] = []
        self.connections = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def url(self, name: str) -> str:
        """Return a repository's URL."""
        return f"ssh://git@{HOST}:{self._port}/{name}.git"

    @property
    def known_hosts(self) -> bytes:
        """The server's entry in a known_hosts file."""
        return b"[%b]:%d %b" % (HOST.encode(), self._port, self._host_key.export_public_key())

    async def _serve(self) -> None:
        owner = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: Any) -> None:  # noqa: ARG002 - asyncssh's signature, here and below.
                owner.connections += 1

            def begin_auth(self, username: str) -> bool:  # noqa: ARG002
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: Any) -> bool:  # noqa: ARG002
                return bool(key.public_data == owner._client.public_data)

        listening = await asyncssh.create_server(
            Server, HOST, 0, server_host_keys=[self._host_key], process_factory=self._run, encoding=None
        )
        self._port = listening.get_port()
        self._started.set()
        await self._stop.wait()
        listening.close()
        await listening.wait_closed()

    async def _run(self, process: Any) -> None:
        self.commands.append(process.command)
        program, path = shlex.split(process.command)
        repository = (self._root / path.lstrip("/")).resolve()
        if program != "git-upload-pack" or not repository.is_relative_to(self._root.resolve()):
            process.exit(1)
            return
        environment = {"PATH": os.defpath, "HOME": os.devnull}
        if (version := process.env.get("GIT_PROTOCOL")) is not None:
            environment["GIT_PROTOCOL"] = version
        child = await asyncio.create_subprocess_exec(
            "git",
            "-c",
            "safe.directory=*",
            "upload-pack",
            str(repository),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        upload = asyncio.create_task(_copy(process.stdin, child.stdin))
        await _copy(child.stdout, process.stdout)
        upload.cancel()
        await asyncio.wait([upload])
        process.exit(await child.wait())


async def _copy(source: Any, target: Any) -> None:
    while data := await source.read(2**16):
        target.write(data)
        await target.drain()
    target.write_eof()
