"""AWS Secrets Manager and STS on loopback, for tests and demos: real HTTP, a process of its own, faults on demand.

moto does the work, with its faults mended and the service's limits enforced; signatures and web identity tokens are
checked. Nothing is kept when it stops.

    with AwsServer.start() as aws:
        provider = AwsProvider(region=aws.region, login=aws.access_keys, endpoint_url=aws.endpoint_url)

`python -m secret_manager_controller.testing.aws` starts the same server, prints its address as one line of JSON and
serves until it is told to stop.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import json
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from secret_manager_controller.providers.aws_login import AwsAccessKeys
from secret_manager_controller.testing import servers

REGION = "eu-central-1"

WRITES = frozenset(
    {"CreateSecret", "PutSecretValue", "UpdateSecretVersionStage", "TagResource", "DeleteSecret", "RestoreSecret"}
)
"""The operations that change a secret."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One secret as it stands.

    Attributes:
        value: the current value, or None where there is none.
        labels: each version's staging labels, oldest version first.
        deleted: whether its deletion is scheduled.
    """

    value: bytes | None
    labels: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, str]
    deleted: bool


class AwsServer(servers.HttpStoreServer):
    """A running test server, and all that a test may do to it. Methods block for some milliseconds."""

    def __init__(self, endpoint_url: str, access_keys: AwsAccessKeys, *, region: str = REGION) -> None:
        super().__init__(endpoint_url, writes=WRITES)
        self.endpoint_url = endpoint_url
        self.access_keys = access_keys
        self.region = region

    @classmethod
    def start(cls, *, region: str = REGION) -> Self:
        """Start a server in a process of its own; it ends with this process at the latest.

        Args:
            region: where the methods below look; every region exists.

        Raises:
            ServerError: it did not start.
        """
        with contextlib.ExitStack() as closing:
            address = servers.launch("secret_manager_controller.testing.aws", closing=closing)
            keys = AwsAccessKeys(address["access_key_id"], address["secret_access_key"])
            server = cls(address["endpoint_url"], keys, region=region)
            server._closing = closing.pop_all()
        return server

    def client(
        self,
        service: str = "secretsmanager",
        *,
        keys: AwsAccessKeys | None = None,
        region: str | None = None,
        signed: bool = True,
    ) -> Any:
        """Return a plain client of the SDK for this server, e.g. to look at what the methods below do not show.

        Args:
            service: `secretsmanager` or `sts`.
            keys: what it signs with; the server's own keys by default.
            region: another region than the server's.
            signed: whether it signs at all.
        """
        from botocore import UNSIGNED  # noqa: PLC0415 - see `_session`.
        from botocore.config import Config  # noqa: PLC0415 - see `_session`.

        keys = keys or self.access_keys
        return _session().create_client(
            service,
            region_name=region or self.region,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token,
            config=Config(
                signature_version=None if signed else UNSIGNED,
                parameter_validation=False,  # The server is to see every request, also one that the SDK would refuse.
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        )

    def reset(self) -> None:
        """Forget secrets, faults, calls and how listings answer; access keys and sessions stay."""
        self._control("reset")

    def stale_listing(self, on: bool) -> None:
        """Let ListSecrets show the secrets as they are now, whatever happens to them; or the truth again."""
        self._control("stale_listing", on=on, region=self.region)

    def unreadable(self, name: str, code: str) -> None:
        """Refuse a secret's value with an error code, alone and in batches, until the next reset."""
        self._control("unreadable", name=name, code=code, region=self.region)

    def short_pages(self, size: int) -> None:
        """Answer with pages of at most so many items, as the service may, until the next reset."""
        self._control("short_pages", size=size, region=self.region)

    def secrets(self) -> Mapping[str, StoredSecret]:
        """Return all secrets."""
        return {
            name: StoredSecret(
                value=None if secret["value"] is None else base64.b64decode(secret["value"]),
                labels={version: tuple(labels) for version, labels in secret["versions"].items()},
                tags=secret["tags"],
                deleted=secret["deleted"],
            )
            for name, secret in self._control("secrets", region=self.region).items()
        }

    def values(self) -> Mapping[str, bytes]:
        """Return the current value of each secret that has one and is not scheduled for deletion."""
        return {n: s.value for n, s in self.secrets().items() if s.value is not None and not s.deleted}

    def history(self) -> Mapping[str, tuple[bytes, ...]]:
        """Return the values of all versions of each secret, oldest first."""
        return {
            name: tuple(base64.b64decode(value) for value in values if value is not None)
            for name, values in self._control("history", region=self.region).items()
        }

    def versions(self, name: str) -> int:
        """Return how many versions a secret has; 0 where there is none."""
        secret = self.secrets().get(name)
        return 0 if secret is None else len(secret.labels)

    def tags(self, name: str) -> Mapping[str, str]:
        """Return a secret's tags; none where there is no secret."""
        secret = self.secrets().get(name)
        return {} if secret is None else secret.tags

    def put_by_hand(self, name: str, value: bytes, *, tags: Mapping[str, str] | None = None) -> str:
        """Write a value as a person would, with tags where the secret is new; return its version."""
        try:
            value.decode()
            text = True
        except UnicodeDecodeError:
            text = False
        encoded = base64.b64encode(value).decode()
        version = self._control(
            "put_by_hand", name=name, value=encoded, text=text, tags=dict(tags or {}), region=self.region
        )
        return str(version)

    def create_empty(self, name: str, *, tags: Mapping[str, str] | None = None) -> None:
        """Create a secret that has no version."""
        self._control("create_empty", name=name, tags=dict(tags or {}), region=self.region)

    def schedule_deletion(self, name: str) -> None:
        """Schedule a secret's deletion as a person would."""
        self._control("schedule_deletion", name=name, region=self.region)

    def destroy(self, name: str) -> None:
        """Delete a secret at once."""
        self._control("destroy", name=name, region=self.region)

    def add_access_key(self, access_key_id: str, secret_access_key: str) -> AwsAccessKeys:
        """Let another access key in; the call log tells it apart."""
        self._control("add_access_key", access_key_id=access_key_id, secret_access_key=secret_access_key)
        return AwsAccessKeys(access_key_id, secret_access_key)

    def remove_access_key(self, access_key_id: str) -> None:
        """Refuse an access key from now on."""
        self._control("remove_access_key", access_key_id=access_key_id)

    def expire_sessions(self) -> None:
        """Let the keys of every assumed role have expired."""
        self._control("expire_sessions")


@functools.cache
def _session() -> Any:
    import botocore.session  # noqa: PLC0415 - only those who want a client have the SDK loaded.

    return botocore.session.Session()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    arguments = parser.parse_args()

    # moto is imported in the server's process only: it registers a handler with botocore when it is imported.
    from secret_manager_controller.testing import aws_server  # noqa: PLC0415
    from secret_manager_controller.testing.aws_auth import Login  # noqa: PLC0415
    from secret_manager_controller.testing.aws_controls import AwsControls  # noqa: PLC0415

    application = aws_server.AwsApplication()
    key = f"AKIA{secrets.token_hex(8).upper()}"
    keys = Login(key, secrets.token_hex(20), who=key)
    application.logins.add(keys)
    server = aws_server.make(application, AwsControls(application), port=arguments.port)
    address = {
        "endpoint_url": f"http://127.0.0.1:{server.server_port}",
        "region": REGION,
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
    }
    sys.stdout.write(json.dumps(address) + "\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
