"""What all objects on one vault share that log in alike: requests, listings, and what this process wrote.

Their providers differ in what the objects declare beside values, and in nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from weakref import WeakValueDictionary

from secret_manager_controller.providers.azure_listing import VaultListing
from secret_manager_controller.providers.azure_marks import Seen
from secret_manager_controller.providers.azure_vault import VaultClient
from secret_manager_controller.providers.lending import Lender
from secret_manager_controller.providers.listed import Listed


class SharedVault:
    """One login to one vault. Safe for concurrent use on one event loop."""

    def __init__(self, client: VaultClient) -> None:
        self.client = client
        self._listing = VaultListing(client.listing)
        self._indexed: tuple[Mapping[str, Seen], Listed[str, Seen]] | None = None
        self._written: dict[str, float] = {}
        """When we last wrote a secret: a listing that began before is not the truth about it."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def listed(self, wanted: Collection[str], *, since: float | None) -> Listed[str, Seen]:
        """Return a listing that began `since` or later, and after we wrote any of the wanted secrets."""
        now = self._listing.now()
        since = now if since is None else min(since, now)
        listed = await self._listing.since(max([since, *(self._written.get(key, since) for key in wanted)]))
        began = self._listing.began
        self._written = {key: at for key, at in self._written.items() if at > began}
        return self._index(listed)

    def wrote(self, key: str) -> None:
        """Note that a secret was written, or may have been."""
        self._written[key] = self._listing.now()

    def lock(self, key: str) -> asyncio.Lock:
        """Return the lock that writes of a secret take: two of our own would both find it as they expect it."""
        return self._locks.setdefault(key, asyncio.Lock())

    def _index(self, listed: Mapping[str, Seen]) -> Listed[str, Seen]:
        """Return a listing's index, made once for all objects that share it."""
        if self._indexed is None or self._indexed[0] is not listed:
            index = Listed(tuple(listed.values()), name_of=lambda seen: seen.key, mark_of=lambda seen: seen.mark)
            self._indexed = listed, index
        return self._indexed[1]

    async def aclose(self) -> None:
        """End listings, wait for requests under way, then end threads and connections."""
        await self._listing.aclose()
        await self.client.aclose()


class SharedVaults(Lender[SharedVault]):
    """The vaults that are in use, by name, login and all else that their requests depend on."""


SHARED_VAULTS = SharedVaults()
"""What all providers of this process share."""
