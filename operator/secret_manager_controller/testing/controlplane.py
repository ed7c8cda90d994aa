"""A real Kubernetes API, for tests and demos: etcd and kube-apiserver on loopback, in a directory of their own.

There are no controllers, no scheduler and no nodes: a deleted namespace stays `Terminating`, owners' objects are not
collected, pods do not run, and the ClusterRoles `admin`, `edit` and `view` are empty, since a controller fills them.
What the API server itself does is real: validation, CEL, RBAC, conflicts, watches.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import http.client
import io
import json
import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from secret_manager_controller.testing import certificates, processes

HOST = "127.0.0.1"
READY_TIMEOUT = 60.0  # Seconds; two idle cores need 3, and tests may start several planes at once on busy ones.
STOP_GRACE = 2.0  # Seconds before SIGKILL; an idle API server takes one, but open watches would hold it for 60.
POLL_INTERVAL = 0.05  # Seconds between two looks at whether a program is ready.
REQUEST_TIMEOUT = 60.0  # Seconds; the API server's own limit for requests other than watches.
SOCKET_PATH_MAX = 103  # Bytes that a Unix socket's address holds on every system (macOS 103, Linux 107).
# /readyz does not wait for the namespaces that the API server makes.
READY_PATHS = ("/readyz", "/api/v1/namespaces/kube-system", "/api/v1/namespaces/default")
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlaneError(RuntimeError):
    """The control plane did not start; the message names the log, which is kept, and quotes its last lines."""


@dataclass(frozen=True)
class User:
    """Somebody who may log in with a token; what they may do is up to RBAC."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters",))
"""May do everything, always, past RBAC; every plane has this user."""


class ControlPlane:
    """A running control plane, as a context manager that stops it.

    Attributes:
        directory: everything that belongs to it.
        url: the API server's address.
        ca_file: the certificate that vouches for the API server, PEM.
    """

    def __init__(self, directory: Path, *, port: int, tokens: Mapping[str, str]) -> None:
        self.directory = directory
        self.url = f"https://{HOST}:{port}"
        self.ca_file = directory / "ca.crt"
        self._port = port
        self._tokens = tokens
        self._tls = ssl.create_default_context(cafile=self.ca_file)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, Sequence[str | os.PathLike[str]]] = {}
        self._closing = contextlib.ExitStack()

    @classmethod
    def start(
        cls,
        *,
        etcd: Path,
        kube_apiserver: Path,
        directory: Path | None = None,
        users: Iterable[User] = (),
        audit_log: bool = False,
        arguments: Sequence[str] = (),
        timeout: float = READY_TIMEOUT,
    ) -> Self:
        """Start both programs and return when the API server is ready.

        Args:
            etcd: the program.
            kube_apiserver: the program.
            directory: where data, keys and logs are kept and left; by default a temporary one that `stop` removes.
            users: who may log in beside `admin`.
            audit_log: whether to record every request for `audit_events`.
            arguments: more arguments for kube-apiserver, such as `--feature-gates=…`.
            timeout: seconds until both are ready.

        Raises:
            ControlPlaneError: one of them ended or was not ready in time.
            OSError: one of them is not a program, or the directory cannot be written.
        """
        with contextlib.ExitStack() as closing:
            if directory is None:
                directory = closing.enter_context(
                    processes.temporary_directory("control-plane", kept_after=(ControlPlaneError,))
                )
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of its own, since a caller's directory is often too deep for a socket, such as pytest's tmp_path.
            store = closing.enter_context(processes.temporary_directory("etcd")) / "etcd.sock"
            if len(os.fsencode(store)) > SOCKET_PATH_MAX:
                raise ControlPlaneError(f"{store} is too long for a socket: set TMPDIR to a shorter path")
            tokens = _write_tokens(directory / "tokens.csv", (ADMIN, *users))
            certificates.write_serving_certificate(directory, address=HOST)
            certificates.write_key(directory / "service-accounts.key")
            with processes.reserved_port(HOST) as port:
                plane = cls(directory, port=port, tokens=tokens)
                closing.callback(plane._stop_all)
                deadline = time.monotonic() + timeout
                plane._launch(etcd, name="etcd", arguments=_etcd_arguments(directory, store))
                plane._wait("etcd", functools.partial(_accepts, store), deadline=deadline)
                api_server = _api_server_arguments(directory, store, port=port)
                audit = _audit_arguments(directory) if audit_log else []
                plane._launch(kube_apiserver, name="kube-apiserver", arguments=[*api_server, *audit, *arguments])
                plane._wait("kube-apiserver", plane._ready, deadline=deadline)
            plane._closing = closing.pop_all()
        return plane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the API server, then etcd, and remove a temporary directory; a second call does nothing."""
        self._closing.close()

    @property
    def pids(self) -> Mapping[str, int]:
        """The process ids by program, `etcd` and `kube-apiserver`, for who wants to stop or freeze one."""
        return {name: process.pid for name, process in self._processes.items()}

    @property
    def users(self) -> Collection[str]:
        """The names of all who may log in."""
        return self._tokens.keys()

    def token(self, user: str = ADMIN.name) -> str:
        """Return a user's bearer token.

        Raises:
            ValueError: the plane was started without this user.
        """
        if user not in self._tokens:
            raise ValueError(f"no user {user!r}; this control plane knows {', '.join(self._tokens)}")
        return self._tokens[user]

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token as a pod of a ServiceAccount gets it.

        Raises:
            ValueError: there is no such ServiceAccount.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        status, answer = self.request("POST", path, body=request)
        if status != http.HTTPStatus.CREATED:
            raise ValueError(f"no token for ServiceAccount {namespace}/{name}: {answer}")
        return str(answer["status"]["token"])

    def kubeconfig(self, user: str = ADMIN.name) -> Path:
        """Return a kubeconfig file that logs in as this user; it needs no other file, and only its owner may read it.

        Raises:
            ValueError: the plane was started without this user.
        """
        return self.write_kubeconfig(user, self.token(user))

    def write_kubeconfig(self, user: str, token: str) -> Path:
        """Return a kubeconfig file that logs in with a token; its name is the user's."""
        name = "control-plane"
        certificate = base64.b64encode(self.ca_file.read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority-data": certificate}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
        path = self.directory / f"{urllib.parse.quote(user, safe='')}.kubeconfig"
        certificates.write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
        return path

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        user: str = ADMIN.name,
        token: str | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Any]:
        """Send a request and return the answer's HTTP status and document (text, if it is not JSON).

        It is sent as `user`, or as whose token is given.

        Raises:
            OSError: the API server cannot be reached or does not answer.
            http.client.HTTPException: it stopped while it answered.
            ValueError: the plane was started without this user.
        """
        headers = {"Authorization": f"Bearer {token or self.token(user)}", "Content-Type": content_type}
        connection = http.client.HTTPSConnection(HOST, self._port, context=self._tls, timeout=REQUEST_TIMEOUT)
        with contextlib.closing(connection):
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
            is_json = response.headers.get_content_type().endswith("json")
            return response.status, json.loads(text) if is_json else text

    @contextlib.contextmanager
    def api_server_gone(self) -> Iterator[None]:
        """Kill the API server; when the context ends, start it again and return when it is ready.

        Meanwhile connections to its port are refused. etcd and what it holds stay.

        Raises:
            ControlPlaneError: it did not come back.
        """
        name = "kube-apiserver"
        with socket.socket() as holder:
            # Bound and not listening: nobody else is given the port, and who connects is refused.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((HOST, self._port))
            self._processes[name].kill()
            self._processes[name].wait()
            try:
                yield
            finally:
                program, *arguments = self._commands[name]
                self._launch(Path(program), name=name, arguments=[os.fspath(argument) for argument in arguments])
                self._wait(name, self._ready, deadline=time.monotonic() + READY_TIMEOUT)

    def audit_events(self) -> list[dict[str, Any]]:
        """Return the audit events of all requests so far (audit.k8s.io/v1 `Event`, level Metadata), oldest first.

        A watch has one when it begins and one when it ends; any other request has one, `stage` `ResponseComplete`.

        Raises:
            FileNotFoundError: the plane was started without `audit_log`.
        """
        text = (self.directory / "audit.log").read_text()
        complete, _, _ = text.rpartition("\n")  # The API server may be writing the last line.
        return [json.loads(line) for line in complete.splitlines()]

    def _launch(self, program: Path, *, name: str, arguments: Sequence[str]) -> None:
        self._commands[name] = [program, *arguments]
        self._processes[name] = processes.start(self._commands[name], log=self.directory / f"{name}.log")

    def _wait(self, name: str, ready: Callable[[], bool], *, deadline: float) -> None:
        process, log = self._processes[name], self.directory / f"{name}.log"
        while not ready():
            if process.poll() is not None:
                raise ControlPlaneError(f"{name} ended with {process.returncode}; {log} ends:\n{processes.tail(log)}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{name} was not ready in time; {log} ends:\n{processes.tail(log)}")
            time.sleep(POLL_INTERVAL)

    def _ready(self) -> bool:
        try:
            return all(self.request("GET", path)[0] == http.HTTPStatus.OK for path in READY_PATHS)
        except (OSError, http.client.HTTPException):
            return False

    def _stop_all(self) -> None:
        for process in reversed(self._processes.values()):
            processes.stop(process, grace=STOP_GRACE)


def _accepts(path: Path) -> bool:
    """Tell whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def _etcd_arguments(directory: Path, store: Path) -> list[str]:
    # A Unix socket needs no port, and the directory's mode keeps other users of the machine away from the data.
    client = f"unix://{store}"
    peer = f"http://{HOST}:0"  # Nobody dials it: the cluster has one member. etcd demands it all the same.
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # What a crash of the machine would lose is of no use to anybody.
    ]


def _api_server_arguments(directory: Path, store: Path, *, port: int) -> list[str]:
    service_account_key = directory / "service-accounts.key"
    return [
        f"--etcd-servers=unix://{store}",
        f"--bind-address={HOST}",
        f"--secure-port={port}",
        "--permit-port-sharing",  # With the socket that reserves the port.
        f"--advertise-address={HOST}",
        "--endpoint-reconciler-type=none",  # It would refuse a loopback address, every ten seconds.
        f"--tls-cert-file={directory / 'server.crt'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={service_account_key}",
        f"--service-account-signing-key-file={service_account_key}",
    ]


def _audit_arguments(directory: Path) -> list[str]:
    policy = directory / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT_POLICY))
    # Beyond so many MB it would begin a new file; `audit_events` reads one.
    log = [f"--audit-log-path={directory / 'audit.log'}", "--audit-log-maxsize=4096"]
    return [f"--audit-policy-file={policy}", *log]


def _write_tokens(path: Path, users: Iterable[User]) -> dict[str, str]:
    """Write kube-apiserver's static token file (token, name, UID, quoted groups) and return the tokens by name."""
    tokens: dict[str, str] = {}
    text = io.StringIO()
    table = csv.writer(text)
    for user in users:
        tokens[user.name] = secrets.token_urlsafe(32)
        table.writerow([tokens[user.name], user.name, user.name, ",".join(user.groups)])
    certificates.write_private(path, text.getvalue().encode())
    return tokens
