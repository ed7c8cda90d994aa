"""What a test may do to the Azure test server from outside: `POST /_control/<method>` with a JSON object."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from secret_manager_controller.testing.azure_quotas import Quotas
from secret_manager_controller.testing.azure_server import VAULT_SUFFIXES, AzureApplication
from secret_manager_controller.testing.azure_vault import StoredSecret, Vault
from secret_manager_controller.testing.controls import Controls


class AzureControls(Controls[AzureApplication]):
    """The controls beside those of every server; each method below is one."""

    def reset(self) -> None:
        """Forget secrets, faults, quotas, calls, how vaults answer, and how far the clock is ahead."""
        application = self._application
        application.vaults = {name: Vault(name, application.now) for name in application.vaults}
        application.faults.clear()
        application.throttle.reset()
        application.calls.clear()
        application.offset, application.stopped = 0.0, None

    def quotas(self, **quotas: Any) -> None:
        """Limit the requests to each vault; see `Quotas`."""
        self._application.throttle.quotas = Quotas(**quotas)

    def add_vault(self, *, vault: str) -> None:
        """Let there be another vault."""
        self._application.vaults.setdefault(vault, Vault(vault, self._application.now))

    def stale_listing(self, *, on: bool, vault: str) -> None:
        """Freeze or thaw what GetSecrets shows."""
        self._vault(vault).freeze(f"https://{vault}.{VAULT_SUFFIXES[0]}:443" if on else None)

    def short_pages(self, *, size: int, vault: str) -> None:
        """Answer with shorter pages than asked for."""
        self._vault(vault).page = size

    def transition(self, *, seconds: float, vault: str) -> None:
        """Let deletions and recoveries take so long."""
        self._vault(vault).transition = seconds

    def pass_time(self, *, seconds: float) -> None:
        """Put the server's clock forward."""
        self._application.offset += seconds

    def stop_clock(self) -> None:
        """Stop the server's clock."""
        self._application.stop_clock()

    def secrets(self, *, vault: str) -> dict[str, Any]:
        """Return every secret with its current value, its versions and whether it is deleted."""
        return {secret.name: _told(secret) for secret in self._vault(vault).secrets.values()}

    def put_by_hand(self, *, name: str, value: str, tags: dict[str, str], pause: float, vault: str) -> str:
        """Write a value (base64) as a person would; return its version. Then so many seconds pass."""
        text = base64.b64decode(value).decode()
        store = self._vault(vault)
        version = store.set_secret("", name, {"value": text, "tags": tags})["id"].rpartition("/")[2]
        self._application.offset += pause
        return str(version)

    def change(self, *, name: str, change: dict[str, Any], vault: str) -> None:
        """Change the current version's tags, content type or attributes as a person would."""
        self._vault(vault).update_secret("", name, "", change)

    def schedule_deletion(self, *, name: str, vault: str) -> None:
        """Delete a secret softly."""
        self._vault(vault).delete_secret("", name)

    def recover(self, *, name: str, vault: str) -> None:
        """Bring a deleted secret back."""
        self._vault(vault).recover("", name)

    def destroy(self, *, name: str, vault: str) -> None:
        """Delete a secret for good."""
        del self._vault(vault).secrets[name.lower()]

    def create_key(self, *, name: str, vault: str) -> str:
        """Make a new version of a key; return the version."""
        return self._application.keys[self._vault(vault).name].create(name)

    def enable_key(self, *, name: str, version: str, enabled: bool, vault: str) -> None:
        """Enable or disable a version of a key."""
        self._application.keys[vault].enable(name, version, enabled=enabled)

    def add_client(self, *, client_id: str, client_secret: str) -> None:
        """Let there be another application."""
        self._application.entra.clients[client_id] = client_secret

    def remove_client(self, *, client_id: str) -> None:
        """Let an application be gone; tokens that it has stay good."""
        del self._application.entra.clients[client_id]

    def expire_tokens(self) -> None:
        """Let every access token that was given so far be good no more."""
        self._application.entra.expire_all()

    def _vault(self, name: str) -> Vault:
        return self._application.vaults[name]


def _told(secret: StoredSecret) -> dict[str, Any]:
    versions = [asdict(version) for version in secret.versions]
    for version in versions:
        version["value"] = base64.b64encode(version["value"].encode()).decode()
    return {"versions": versions, "deleted": secret.deleted_at is not None}
