"""What all objects on one project that log in alike share: requests, listings, and what is known of each secret.

Their providers differ in what the objects declare beside values, and in nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from secret_manager_controller.model.observed import OwnerMark, RemoteValue
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers.gcp_api import Message
from secret_manager_controller.providers.gcp_client import LIST_PAGE, GcpClient, name_of
from secret_manager_controller.providers.gcp_errors import NOT_FOUND, GcpRefusal
from secret_manager_controller.providers.gcp_looks import VersionLooks
from secret_manager_controller.providers.gcp_marks import filter_of, mark_of
from secret_manager_controller.providers.lending import Lender
from secret_manager_controller.providers.listing import Listing


class GcpProject:
    """One login to one project, or to a location of it. Safe for concurrent use on one event loop.

    Attributes:
        client: makes its requests.
        listing: what its owners have.
        looks: the versions that were seen.
        etags: of secrets' metadata, as passes saw them.
        own_etags: those that our last finished writes left: a listing may be older than they are.
        writer: tells our own claim, whose answer was lost, from the same write of another member.
    """

    def __init__(self, client: GcpClient) -> None:
        self.client = client
        self.listing: Listing[Message] = Listing(self._list, name_of=name_of, mark_of=mark_on, page=LIST_PAGE)
        self.looks = VersionLooks(self._newest)
        self.etags: dict[SecretName, str] = {}
        self.own_etags: dict[SecretName, str] = {}
        self.writer = secrets.token_hex(4)

    async def value(self, name: SecretName) -> RemoteValue | None:
        """Return the newest value, or None where there is none to read."""
        value, known = await self.client.value(name), self.looks.number(name)
        if isinstance(value, RemoteValue) and int(value.version) < known:
            by_number = await self.client.value(name, str(known))
            value = value if isinstance(by_number, GcpRefusal) and by_number.code == NOT_FOUND else by_number
        if isinstance(value, GcpRefusal):
            return None
        self.looks.note(name, int(value.version))
        return value

    def forget(self, name: SecretName) -> None:
        """Forget a secret that is gone."""
        self.etags.pop(name, None)
        self.own_etags.pop(name, None)
        self.looks.forget(name)

    async def aclose(self) -> None:
        """Wait for requests under way, then end the connection."""
        await self.listing.aclose()
        await self.client.aclose()

    async def _list(self, cluster: str | None, owner: str | None) -> Sequence[Message]:
        return await self.client.secrets("" if cluster is None else filter_of(cluster, owner))

    async def _newest(self, name: SecretName, within: float) -> tuple[int, bool]:
        """Look up the newest version; what `latest` is may be out of date, a version's number is not."""
        number, enabled = await self.client.state(name, within=within, urgent=False)
        known = self.looks.number(name)
        if number < known:
            by_number = await self.client.state(name, str(known), within=within, urgent=False)
            if by_number[0]:
                return by_number
        return number, enabled


def mark_on(secret: Message) -> OwnerMark | None:
    """Return the owner mark that a secret carries, whoever wrote it."""
    return mark_of(secret.labels, secret.annotations)


SHARED_PROJECTS: Lender[GcpProject] = Lender()
"""What all providers of this process share."""
