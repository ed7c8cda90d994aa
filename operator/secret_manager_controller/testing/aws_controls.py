"""What a test may do to the AWS test server from outside: `POST /_control/<method>` with a JSON object."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from secret_manager_controller.testing import aws_store
from secret_manager_controller.testing.aws_auth import Login
from secret_manager_controller.testing.aws_server import AwsApplication
from secret_manager_controller.testing.controls import Controls


class AwsControls(Controls[AwsApplication]):
    """The controls beside those of every server; each method below is one."""

    def reset(self) -> None:
        """Forget secrets, faults and calls."""
        self._application.reset()

    def stale_listing(self, *, on: bool, region: str) -> None:
        """Freeze or thaw what ListSecrets shows."""
        self._application.region(region).freeze_listing(stale=on)

    def unreadable(self, *, name: str, code: str, region: str) -> None:
        """Refuse a secret's value with an error code."""
        self._application.region(region).unreadable[name] = code

    def short_pages(self, *, size: int, region: str) -> None:
        """Answer with shorter pages than asked for."""
        self._application.region(region).short_page = size

    def add_access_key(self, *, access_key_id: str, secret_access_key: str) -> None:
        """Let an access key in."""
        self._application.logins.add(Login(access_key_id, secret_access_key, who=access_key_id))

    def remove_access_key(self, *, access_key_id: str) -> None:
        """Refuse an access key from now on."""
        self._application.logins.remove(access_key_id)

    def expire_sessions(self) -> None:
        """Let every assumed role's keys have expired."""
        self._application.logins.expire_sessions()

    def secrets(self, *, region: str) -> dict[str, Any]:
        """Return every secret with its current value, labels, tags and whether its deletion is scheduled."""
        return {
            secret.name: {
                "value": _exposed(aws_store.current_value(secret)),
                "versions": {name: version["version_stages"] for name, version in secret.versions.items()},
                "tags": {tag["Key"]: tag["Value"] for tag in secret.tags or []},
                "deleted": secret.is_deleted(),
            }
            for secret in self._application.region(region).secrets.values()
        }

    def history(self, *, region: str) -> dict[str, list[str | None]]:
        """Return the values of each secret's versions, oldest first."""
        return {
            secret.name: [_exposed(version) for version in secret.versions.values()]
            for secret in self._application.region(region).secrets.values()
        }

    def put_by_hand(self, *, name: str, value: str, text: bool, tags: dict[str, str], region: str) -> str:
        """Write a value (base64) as a person would, with tags where the secret is new; return its version."""
        data = base64.b64decode(value).decode() if text else value
        kind = "secret_string" if text else "secret_binary"
        labels = [{"Key": key, "Value": tag} for key, tag in tags.items()]
        return self._application.region(region).put_by_hand(name, kind, data, labels)

    def create_empty(self, *, name: str, tags: dict[str, str], region: str) -> None:
        """Create a secret without a version."""
        self._application.region(region).create_secret(
            name=name,
            secret_string=None,
            secret_binary=None,
            description="",
            tags=[{"Key": key, "Value": tag} for key, tag in tags.items()],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )

    def schedule_deletion(self, *, name: str, region: str) -> None:
        """Schedule a secret's deletion."""
        self._application.region(region).delete_secret(name, 30, force_delete_without_recovery=False)

    def destroy(self, *, name: str, region: str) -> None:
        """Delete a secret at once."""
        self._application.region(region).delete_secret(name, None, force_delete_without_recovery=True)


def _exposed(version: Mapping[str, Any] | None) -> str | None:
    """Return a version's value in base64, which is how it stores a binary one."""
    if version is None:
        return None
    if "secret_binary" in version:
        return str(version["secret_binary"])
    return base64.b64encode(version["secret_string"].encode()).decode()
