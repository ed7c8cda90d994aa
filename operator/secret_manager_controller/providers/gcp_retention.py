"""How many versions of a secret are kept: each that is enabled or disabled is billed every month."""

from __future__ import annotations

import logging

from lease_sharding.fence import Fence
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers.gcp_api import DISABLED, ENABLED, Message
from secret_manager_controller.providers.gcp_client import GcpClient
from secret_manager_controller.providers.gcp_errors import NOT_FOUND, PRECONDITION, GcpRefusal

MOST_AT_ONCE = 10
"""Versions that one write retires: an object that begins to keep fewer does not spend the project's quota on it."""
_PAGE = 1000  # Versions; a secret that is written every hour has as many in six weeks.

_log = logging.getLogger(__name__)


async def retire(client: GcpClient, name: SecretName, *, keep: int, fence: Fence) -> None:
    """Disable what is older than the newest `keep` versions, and destroy what was disabled by then.

    So a version can be brought back until the next write. Whatever goes wrong here is logged only: the value is
    written, and the next write retires what this one left.

    Raises:
        OwnershipLost: the fence closed.
    """
    try:
        for version in (await _versions(client, name))[keep:][-MOST_AT_ONCE:]:
            await _retire_one(client, name, version, fence)
    except ControllerError as error:
        _log.warning("old versions could not be retired", extra={"secret": name, "reason": error.reason})


async def disable(client: GcpClient, name: SecretName, *, keep: int, fence: Fence) -> bool:
    """Disable what is older than the newest `keep` versions; return whether none of them is enabled any more.

    Nothing is destroyed without a write, so that a number that was set too low can be mended.

    Raises:
        OwnershipLost: the fence closed.
        ControllerError: Google refused it, or did not answer.
    """
    enabled = [version for version in (await _versions(client, name))[keep:] if version.state == ENABLED]
    for version in enabled[-MOST_AT_ONCE:]:
        await _retire_one(client, name, version, fence)
    return len(enabled) <= MOST_AT_ONCE


async def _retire_one(client: GcpClient, name: SecretName, version: Message, fence: Fence) -> None:
    operation = {ENABLED: "DisableSecretVersion", DISABLED: "DestroySecretVersion"}[version.state]
    await client.attempt(
        operation,
        about=name,
        unless={NOT_FOUND, PRECONDITION},  # Somebody changed it meanwhile.
        fence=fence,
        name=client.path(name, version.name.rpartition("/")[2]),
        etag=version.etag,
    )


async def _versions(client: GcpClient, name: SecretName) -> list[Message]:
    """Return the versions that are not destroyed, newest first."""
    found: list[Message] = []
    token = ""
    while True:
        page = await client.attempt(
            "ListSecretVersions", about=name, parent=client.path(name), page_size=_PAGE, page_token=token
        )
        assert not isinstance(page, GcpRefusal)  # None was let through.
        found.extend(version for version in page.versions if version.state in {ENABLED, DISABLED})
        token = page.next_page_token
        if not token:
            return found
