"""Azure Key Vault and Entra ID on loopback, for tests and demos: real TLS, a process of its own, faults on demand.

The vaults' and Entra's real names are reached through the server as a proxy, so that a client verifies certificates and
challenges as it would with Azure:

    with AzureServer.start() as azure:
        provider = AzureProvider(vault=azure.vault, login=azure.client_secret, endpoints=azure.endpoints)

A client that cannot use a proxy reaches one vault and Entra at `https://127.0.0.1:<port>`, and must then be told not to
compare the challenge with the vault's name. Tokens are checked. Nothing is kept when the server stops.

`python -m secret_manager_controller.testing.azure` starts the same server, prints its addresses as one line of JSON and
serves until it is told to stop.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import secrets
import signal
import ssl
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secret_manager_controller.providers.azure_login import AzureClientSecret, AzureEndpoints, AzureFederation
from secret_manager_controller.testing import servers, tokens
from secret_manager_controller.testing.azure_entra import AUDIENCE

VAULT = "test-vault"
TENANT = "6f1c0000-0000-4000-8000-000000000001"
"""The same in every server: the SDK remembers for the whole process which tenant a vault's challenge named."""
SUBJECT = "system:serviceaccount:microscaler-system:secret-manager-controller"

WRITES = frozenset({"SetSecret", "UpdateSecret", "DeleteSecret", "RecoverDeletedSecret", "PurgeDeletedSecret"})
"""The operations that change a secret."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version as it stands."""

    id: str
    value: bytes
    tags: Mapping[str, str]
    content_type: str | None
    enabled: bool
    created: int
    updated: int
    not_before: int | None
    expires: int | None


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One secret as it stands.

    Attributes:
        versions: oldest first; the last is the current one.
        deleted: whether it is deleted softly.
    """

    versions: tuple[StoredVersion, ...]
    deleted: bool

    @property
    def current(self) -> StoredVersion:
        """The version that was set last."""
        return self.versions[-1]


class AzureServer(servers.HttpStoreServer):
    """A running test server, and all that a test may do to it. Methods block for some milliseconds.

    Attributes:
        endpoints: how a provider reaches it.
        vault: the vault where the methods below look.
        client_secret: the login of an application that exists.
        url: where one vault and Entra are without a proxy.
        environment: the variables that lead a controller to the server.
        go_environment: the variables that lead a program in Go, such as sops, to the server and log it in.
        credentials: the data of a Secret with the login of the application.
    """

    def __init__(self, address: Mapping[str, str]) -> None:
        super().__init__(address["proxy_url"], writes=WRITES)
        self.vault = address["vault"]
        self.client_secret = AzureClientSecret(
            tenant_id=address["tenant_id"], client_id=address["client_id"], client_secret=address["client_secret"]
        )
        self.endpoints = AzureEndpoints(proxy=address["proxy_url"], ca_file=Path(address["ca_file"]))
        self.url = address["url"]
        self.environment = {
            "HTTPS_PROXY": address["proxy_url"],
            "REQUESTS_CA_BUNDLE": address["ca_file"],
            "AZURE_TENANT_ID": address["tenant_id"],
        }
        self.go_environment = {
            "HTTPS_PROXY": address["proxy_url"],
            "SSL_CERT_FILE": address["ca_file"],
            "AZURE_TENANT_ID": address["tenant_id"],
            "AZURE_CLIENT_ID": address["client_id"],
            "AZURE_CLIENT_SECRET": address["client_secret"],
        }
        self.credentials = {
            "tenant-id": address["tenant_id"].encode(),
            "client-id": address["client_id"].encode(),
            "client-secret": address["client_secret"].encode(),
        }

    @classmethod
    def start(cls) -> Self:
        """Start a server in a process of its own; it ends with this process at the latest.

        Raises:
            ServerError: it did not start.
        """
        with contextlib.ExitStack() as closing:
            server = cls(servers.launch("secret_manager_controller.testing.azure", closing=closing))
            server._closing = closing.pop_all()
        return server

    def federation(self, token_file: Path) -> AzureFederation:
        """Return a login by a federated token, of the application that exists."""
        login = self.client_secret
        return AzureFederation(tenant_id=login.tenant_id, client_id=login.client_id, token_file=token_file)

    def reset(self) -> None:
        """Forget secrets, faults, quotas, calls, how vaults answer, the time that passed; vaults, keys, logins stay."""
        self._control("reset")

    def quotas(self, *, all: int | None = None, sets: int | None = None, window: float = 10.0) -> None:  # noqa: A002 - as Azure names it.
        """Let each vault take so many requests of every kind and so many new versions in a window of seconds.

        What is more is answered with 429 and `Retry-After`. None is no limit, as it is by default.
        """
        self._control("quotas", all=all, sets=sets, window=window)

    def add_vault(self, name: str) -> None:
        """Let there be another vault, which is empty."""
        self._control("add_vault", vault=name)

    def stale_listing(self, on: bool) -> None:
        """Let GetSecrets show the secrets as they are now, whatever happens to them; or the truth again."""
        self._control("stale_listing", on=on, vault=self.vault)

    def short_pages(self, size: int) -> None:
        """Answer with pages of at most so many items, until the next reset."""
        self._control("short_pages", size=size, vault=self.vault)

    def transition(self, seconds: float) -> None:
        """Let deletions and recoveries take so long, until the next reset; at once by default."""
        self._control("transition", seconds=seconds, vault=self.vault)

    def pass_time(self, seconds: float) -> None:
        """Put the server's clock forward, until the next reset."""
        self._control("pass_time", seconds=seconds)

    def stop_clock(self) -> None:
        """Let no time pass on the server's clock but by `pass_time` and `put_by_hand`, until the next reset."""
        self._control("stop_clock")

    def secrets(self) -> Mapping[str, StoredSecret]:
        """Return all secrets, deleted ones included."""
        return {
            name: StoredSecret(
                tuple(
                    StoredVersion(**{**version, "value": base64.b64decode(version["value"])})
                    for version in secret["versions"]
                ),
                secret["deleted"],
            )
            for name, secret in self._control("secrets", vault=self.vault).items()
        }

    def values(self) -> Mapping[str, bytes]:
        """Return the current value of each secret that can be read."""
        return {n: s.current.value for n, s in self.secrets().items() if s.current.enabled and not s.deleted}

    def versions(self, name: str) -> int:
        """Return how many versions a secret has; 0 where there is none."""
        secret = self.secrets().get(name)
        return 0 if secret is None else len(secret.versions)

    def tags(self, name: str) -> Mapping[str, str]:
        """Return the current version's tags; none where there is no secret."""
        secret = self.secrets().get(name)
        return {} if secret is None else secret.current.tags

    def put_by_hand(self, name: str, value: bytes, *, tags: Mapping[str, str] | None = None, pause: float = 2.0) -> str:
        """Write a value as a person would, whose version has these tags only; return the version.

        Args:
            name: of the secret.
            value: text in UTF-8: a vault holds nothing else.
            tags: of the new version; those of the version before are not taken over.
            pause: seconds that pass then on the server's clock, since people need a moment.
        """
        encoded = base64.b64encode(value).decode()
        version = self._control(
            "put_by_hand", name=name, value=encoded, tags=dict(tags or {}), pause=pause, vault=self.vault
        )
        return str(version)

    def change(self, name: str, **change: Any) -> None:
        """Change the current version as a person would.

        Args:
            name: of the secret.
            change: `tags`, `contentType` or `attributes` (`enabled`, `nbf`, `exp`), as the API names them.
        """
        self._control("change", name=name, change=change, vault=self.vault)

    def disable(self, name: str) -> None:
        """Disable the current version, so that its value cannot be read."""
        self.change(name, attributes={"enabled": False})

    def schedule_deletion(self, name: str) -> None:
        """Delete a secret softly, as a person would."""
        self._control("schedule_deletion", name=name, vault=self.vault)

    def recover(self, name: str) -> None:
        """Bring a deleted secret back, as a person would."""
        self._control("recover", name=name, vault=self.vault)

    def destroy(self, name: str) -> None:
        """Delete a secret for good."""
        self._control("destroy", name=name, vault=self.vault)

    def create_key(self, name: str, *, vault: str | None = None) -> str:
        """Make a key, or a new version of it, in the first vault or another one; return its id with the version."""
        vault = vault or self.vault
        version = self._control("create_key", name=name, vault=vault)
        return f"{self.endpoints.vault_url(vault)}/keys/{name}/{version}"

    def enable_key(self, key: str, enabled: bool) -> None:
        """Enable or disable the version of a key that an id names."""
        host, _, name, version = key.removeprefix("https://").split("/")
        self._control("enable_key", name=name, version=version, enabled=enabled, vault=host.partition(".")[0])

    def add_client(self, client_id: str, client_secret: str) -> AzureClientSecret:
        """Let there be another application; the call log tells it apart."""
        self._control("add_client", client_id=client_id, client_secret=client_secret)
        return AzureClientSecret(self.client_secret.tenant_id, client_id, client_secret)

    def remove_client(self, client_id: str) -> None:
        """Let an application be gone."""
        self._control("remove_client", client_id=client_id)

    def expire_tokens(self) -> None:
        """Let every access token that was given so far be good no more."""
        self._control("expire_tokens")


def federated_token(subject: str = SUBJECT, *, audience: str = AUDIENCE, lifetime: float = 3600.0) -> str:
    """Return a token as a kubelet projects it for Azure; see `tokens.web_identity_token`."""
    return tokens.web_identity_token(subject, audience=audience, lifetime=lifetime)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="azure-server-") as directory:
        _serve(arguments.port, Path(directory))


def _serve(port: int, directory: Path) -> None:
    # What only the server's process needs is imported there.
    from secret_manager_controller.testing.azure_controls import AzureControls  # noqa: PLC0415
    from secret_manager_controller.testing.azure_server import (  # noqa: PLC0415
        LOGIN_HOSTS,
        VAULT_SUFFIXES,
        AzureApplication,
        make,
    )
    from secret_manager_controller.testing.certificates import write_serving_certificate  # noqa: PLC0415

    names = ["localhost", *LOGIN_HOSTS, *(f"*.{suffix}" for suffix in VAULT_SUFFIXES)]
    write_serving_certificate(directory, address="127.0.0.1", names=names)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "server.crt", directory / "server.key")

    login = AzureClientSecret(TENANT, str(uuid.uuid4()), secrets.token_urlsafe(30))
    application = AzureApplication(tenant=login.tenant_id, vault=VAULT)
    application.entra.clients[login.client_id] = login.client_secret
    with make(application, AzureControls(application), tls, port=port) as server:
        address = {
            "proxy_url": f"http://127.0.0.1:{server.server_port}",
            "url": f"https://127.0.0.1:{server.server_port}",
            "ca_file": str(directory / "ca.crt"),
            "vault": VAULT,
            "tenant_id": login.tenant_id,
            "client_id": login.client_id,
            "client_secret": login.client_secret,
        }
        sys.stdout.write(json.dumps(address) + "\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
