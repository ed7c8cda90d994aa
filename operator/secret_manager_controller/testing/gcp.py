"""Google Secret Manager on loopback, for tests and demos: real gRPC, a process of its own, faults on demand.

Beside it, over HTTP, stands what logins need: the token endpoint, the security token service, IAM Credentials and GKE's
metadata server. Messages are those of Google's SDK; tokens are checked. Nothing is kept when it stops.

    with GcpServer.start() as gcp:
        provider = GcpProvider(project=gcp.project, login=gcp.key, endpoints=gcp.endpoints)

`python -m secret_manager_controller.testing.gcp` starts the same server, prints its addresses as one line of JSON and
serves until it is told to stop.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secret_manager_controller.providers.gcp_login import GcpEndpoints, GcpKey
from secret_manager_controller.testing import servers
from secret_manager_controller.testing.gcp_auth import federation_document

PROJECT = "test-project"
SERVICE_ACCOUNT = f"secrets@{PROJECT}.iam.gserviceaccount.com"

WRITES = frozenset(
    {
        "CreateSecret",
        "UpdateSecret",
        "DeleteSecret",
        "AddSecretVersion",
        "EnableSecretVersion",
        "DisableSecretVersion",
        "DestroySecretVersion",
    }
)
"""The operations that change a secret."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One secret as it stands.

    Attributes:
        value: what `latest` gives, or None where it gives nothing.
        states: each version's state (`ENABLED`, `DISABLED`, `DESTROYED`), oldest version first.
        replication: the policy as a serialised `Replication` message.
    """

    value: bytes | None
    states: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    etag: str
    replication: bytes


class GcpServer(servers.StoreServer):
    """A running test server, and all that a test may do to it. Methods block for some milliseconds.

    Attributes:
        endpoints: where Secret Manager and all that logins ask are.
        metadata_host: what `GCE_METADATA_HOST` names.
        key: the key of a service account that exists.
        project: where the methods below look, unless `location` is set.
        location: where regional secrets are looked for, or None for global ones.
    """

    def __init__(self, address: Mapping[str, Any], *, location: str | None = None) -> None:
        super().__init__(address["url"], writes=WRITES)
        self.project: str = address["project"]
        self.location = location
        self.url: str = address["url"]
        self.metadata_host: str = address["metadata_host"]
        roots = address.get("ca_file")
        self.endpoints = GcpEndpoints(
            secretmanager=address["endpoint"],
            kms=address["endpoint"],
            token_url=f"{self.url}/token",
            iamcredentials=self.url,
            roots=None if roots is None else Path(roots),
        )
        self.key = GcpKey(json.dumps(address["key"]).encode())

    @classmethod
    def start(
        cls, *, location: str | None = None, tls: bool = False, open_to_all: bool = False, projects: Sequence[str] = ()
    ) -> Self:
        """Start a server in a process of its own; it ends with this process at the latest.

        Args:
            location: where the methods below look for regional secrets; every location exists.
            tls: whether gRPC is encrypted, with a certificate of the server's own authority.
            open_to_all: whether requests need no token.
            projects: ids of projects that exist beside `PROJECT`.

        Raises:
            ServerError: it did not start.
        """
        with contextlib.ExitStack() as closing:
            arguments = ["--tls"] * tls + ["--open"] * open_to_all + [f"--project={project}" for project in projects]
            address = servers.launch("secret_manager_controller.testing.gcp", *arguments, closing=closing)
            server = cls(address, location=location)
            server._closing = closing.pop_all()
        return server

    @property
    def parent(self) -> str:
        """The resource name of what holds the secrets."""
        return f"projects/{self.project}" + (f"/locations/{self.location}" if self.location else "")

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send a controller's Google providers here."""
        found = {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": self.endpoints.secretmanager,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": self.endpoints.iamcredentials,
            "CLOUDSDK_AUTH_TOKEN_HOST": self.endpoints.token_url,
            "GCE_METADATA_HOST": self.metadata_host,
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": self.endpoints.roots,
        }
        return {name: str(value) for name, value in found.items() if value is not None}

    def reset(self) -> None:
        """Forget secrets, faults, quotas, calls and what was stale; keys and tokens stay."""
        self._control("reset")

    def fail(
        self,
        operation: str,
        code: str,
        *,
        times: int = 1,
        retry_after: float | None = None,
        commit: bool = False,
        name: str | None = None,
    ) -> None:
        """Answer the next requests with an error.

        Args:
            operation: the API's name of it, an exchange's of `gcp_http`, or `*`.
            code: the canonical code, with the reason of its ErrorInfo after a slash if it has one.
            times: how many requests.
            retry_after: seconds that the answer asks to wait.
            commit: carry the request out all the same: its answer is what is lost.
            name: only requests that name this secret.
        """
        self._control(
            "fault", operation=operation, code=code, times=times, retry_after=retry_after, commit=commit, name=name
        )

    def quotas(
        self,
        *,
        reads: int | None = None,
        writes: int | None = None,
        accesses: int | None = None,
        window: float = 60.0,
    ) -> None:
        """Allow so many requests in `window` seconds, until the next reset; None is no limit."""
        self._control("quotas", reads=reads, writes=writes, accesses=accesses, window=window)

    def stale_listing(self, on: bool) -> None:
        """Let ListSecrets show the secrets as they are now, whatever happens to them; or the truth again."""
        self._control("stale_listing", on=on)

    def stale_latest(self, on: bool) -> None:
        """Let `latest` be the version that it is now, whatever is added; or the truth again."""
        self._control("stale_latest", on=on)

    def short_pages(self, size: int) -> None:
        """Answer with pages of at most so many items, until the next reset."""
        self._control("short_pages", size=size)

    def unreadable(self, name: str, code: str) -> None:
        """Refuse a secret's value with an error code, until the next reset."""
        self._control("unreadable", name=name, code=code)

    def secrets(self) -> Mapping[str, StoredSecret]:
        """Return all secrets, oldest first."""
        return {
            name: StoredSecret(
                value=None if secret["value"] is None else base64.b64decode(secret["value"]),
                states=tuple(secret["versions"]),
                labels=secret["labels"],
                annotations=secret["annotations"],
                etag=secret["etag"],
                replication=bytes.fromhex(secret["replication"]),
            )
            for name, secret in self._control("secrets", parent=self.parent).items()
        }

    def values(self) -> Mapping[str, bytes]:
        """Return what `latest` gives for each secret where it gives anything."""
        return {name: secret.value for name, secret in self.secrets().items() if secret.value is not None}

    def versions(self, name: str) -> int:
        """Return how many versions a secret has; 0 where there is none."""
        secret = self.secrets().get(name)
        return 0 if secret is None else len(secret.states)

    def labels(self, name: str) -> Mapping[str, str]:
        """Return a secret's labels; none where there is no secret."""
        secret = self.secrets().get(name)
        return {} if secret is None else secret.labels

    def annotations(self, name: str) -> Mapping[str, str]:
        """Return a secret's annotations; none where there is no secret."""
        secret = self.secrets().get(name)
        return {} if secret is None else secret.annotations

    def put_by_hand(
        self,
        name: str,
        value: bytes,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Add a version as a person would, with labels and annotations where the secret is new; return its number."""
        encoded = base64.b64encode(value).decode()
        return str(self._on("put_by_hand", name, value=encoded, **_metadata(labels, annotations)))

    def create_empty(
        self, name: str, *, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Create a secret that has no version."""
        self._on("create_empty", name, **_metadata(labels, annotations))

    def change_labels(
        self, name: str, *, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Replace a secret's labels and annotations as a person would."""
        self._on("change_labels", name, **_metadata(labels, annotations))

    def change_version(self, name: str, state: str) -> None:
        """Make the newest version `ENABLED`, `DISABLED` or `DESTROYED`."""
        self._on("change_version", name, state=state)

    def destroy(self, name: str) -> None:
        """Delete a secret with all its versions."""
        self._on("destroy", name)

    def make_key(self, email: str) -> GcpKey:
        """Return a new key of a service account; the call log tells it apart."""
        document = self._control("make_key", email=email, token_uri=f"{self.url}/token", project=self.project)
        return GcpKey(json.dumps(document).encode())

    def remove_key(self, key: GcpKey) -> None:
        """Refuse a key from now on; its tokens hold on."""
        self._control("remove_key", key_id=json.loads(key.document)["private_key_id"])

    def expire_tokens(self) -> None:
        """Let every token that was issued have expired."""
        self._control("expire_tokens")

    def token_lifetime(self, seconds: float) -> None:
        """Issue tokens that hold for so long."""
        self._control("token_lifetime", seconds=seconds)

    def workload(self, email: str | None) -> None:
        """Let the metadata server speak for another service account, or for none."""
        self._control("workload", email=email)

    def refuse_impersonation(self, email: str) -> None:
        """Let nobody impersonate a service account, until the next reset."""
        self._control("refuse_impersonation", email=email)

    def federation(self, token_file: Path, *, impersonated: str | None = None) -> bytes:
        """Return a credential configuration file that names a projected token."""
        impersonation = f"{self.url}/v1/projects/-/serviceAccounts/{impersonated}:generateAccessToken"
        return federation_document(
            token_url=f"{self.url}/v1/token",
            token_file=str(token_file),
            impersonation_url=impersonation if impersonated else None,
        )

    def _on(self, action: str, name: str, **arguments: Any) -> Any:
        return self._control(action, parent=self.parent, name=name, **arguments)


def _metadata(labels: Mapping[str, str] | None, annotations: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    return {"labels": dict(labels or {}), "annotations": dict(annotations or {})}


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="gRPC's port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--http-port", type=int, default=0, help="port of logins and controls; 0 takes a free one")
    parser.add_argument("--project", action="append", default=[], help=f"a project that exists beside {PROJECT}")
    parser.add_argument("--tls", action="store_true", help="encrypt gRPC; the authority's certificate is printed")
    parser.add_argument("--open", action="store_true", help="let requests in without a token")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="gcp-server-") as directory:
        _serve(arguments, Path(directory))


def _serve(arguments: argparse.Namespace, directory: Path) -> None:
    # The SDK is imported in the server's process only.
    from secret_manager_controller.testing import gcp_http, gcp_server  # noqa: PLC0415

    application = gcp_server.GcpApplication([PROJECT, *arguments.project], open_to_all=arguments.open)
    address: dict[str, object] = {}
    tls = None
    if arguments.tls:
        from secret_manager_controller.testing import certificates  # noqa: PLC0415

        certificates.write_serving_certificate(directory, address="127.0.0.1")
        tls = ((directory / "server.key").read_bytes(), (directory / "server.crt").read_bytes())
        address["ca_file"] = str(directory / "ca.crt")
    grpc_server, port = gcp_server.serve(application, port=arguments.port, tls=tls)
    http_server = gcp_http.make(application, port=arguments.http_port)
    url = f"http://127.0.0.1:{http_server.server_port}"
    address |= {
        "endpoint": f"{'https' if tls else 'http'}://127.0.0.1:{port}",
        "url": url,
        "metadata_host": f"127.0.0.1:{http_server.server_port}",
        "project": PROJECT,
        "key": application.callers.make_key(SERVICE_ACCOUNT, token_uri=f"{url}/token", project=PROJECT),
    }
    serving = threading.Thread(target=http_server.serve_forever, name="http", daemon=True)
    serving.start()
    sys.stdout.write(json.dumps(address) + "\n")
    sys.stdout.flush()
    try:
        grpc_server.wait_for_termination()
    finally:
        grpc_server.stop(None)
        http_server.shutdown()
        http_server.server_close()


if __name__ == "__main__":
    main()
