"""Requests to one vault: with the login's token, within the vault's quotas, and read as facts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from azure.keyvault.secrets import SecretClient, SecretProperties

from lease_sharding.fence import Fence
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import SecretValue, Version
from secret_manager_controller.providers import calls
from secret_manager_controller.providers.azure_calls import Answer, ask
from secret_manager_controller.providers.azure_clients import Clients, VaultClients
from secret_manager_controller.providers.azure_errors import DISABLED, NOT_FOUND, AzureRefusal, told
from secret_manager_controller.providers.azure_kms import AzureKms
from secret_manager_controller.providers.azure_login import AzureEndpoints, AzureLogin
from secret_manager_controller.providers.azure_marks import Seen, inherited_mark
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import Requests, RetryPolicy, together
from secret_manager_controller.providers.protocol import CallObserver

PAGE = 25  # Most items that Azure lists at once.
BUDGET_PATIENCE = 60.0  # Seconds that a request waits for the budget; a reconcile has five minutes.
THROTTLED_REST = 10.0  # Seconds without requests after the quota was exceeded all the same, if Azure names none.
MARKS_REMEMBERED = 10_000  # Most secrets whose inherited mark is remembered; some 3 MB.
DELETED_PAGES_SHARE = 10
"""Of the deleted secrets so many pages are listed at most, for each so many names that are looked for: a tenth of what
looking at each would take. A vault keeps deleted secrets for 90 days, and may have any number of them."""

T = TypeVar("T")
Call = Callable[[SecretClient], T]


@dataclass(frozen=True, slots=True)
class AzureQuotas:
    """Requests in ten seconds that a vault allows (https://learn.microsoft.com/azure/key-vault/general/service-limits).

    A subscription allows five times as much for all of its vaults in a region.
    """

    all: int = 4000
    sets: int = 300

    STEADY = 0.7
    """Share of a quota that is used in the long run; with the burst it stays below the whole in any ten seconds."""
    BURST = 0.25


@dataclass(frozen=True, slots=True)
class Current:
    """A secret's current version, read from the secret itself.

    Attributes:
        value: None where it is disabled.
        mark: whose the secret is.
        just_now: whether it was made so lately that another version may be made in the same second.
    """

    properties: SecretProperties
    seen: Seen
    value: SecretValue | None
    mark: OwnerMark | None
    just_now: bool

    @property
    def version(self) -> Version | None:
        """The version, or None where its value cannot be read."""
        return self.seen.version


class VaultClient:
    """One login to one vault, and to the keys of any. Safe for concurrent use on one event loop.

    Args:
        vault: the vault's name.
        login: how to get tokens.
        endpoints: where the vault and Entra ID are.
        quotas: what the vault allows.
        budgets: shared by all who use the vault.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self,
        *,
        vault: str,
        login: AzureLogin,
        endpoints: AzureEndpoints,
        quotas: AzureQuotas,
        budgets: Budgets,
        on_call: CallObserver,
        retries: RetryPolicy,
    ) -> None:
        self._login = login
        self._host = endpoints.vault_url(vault).removeprefix("https://")
        self._requests = Requests("azure", place=self._host, on_call=on_call, retries=retries)
        self._logins = Requests("azure", place=f"login of {login.title}", on_call=on_call, retries=retries)
        self._clients = VaultClients(login, vault=vault, endpoints=endpoints, requests=self._logins)
        self.kms = AzureKms(self._clients, login=login, endpoints=endpoints, on_call=on_call, retries=retries)
        # The mark that a secret inherits, by its name and the second in which its unmarked version was made.
        self._inherited: OrderedDict[tuple[str, int], OwnerMark | None] = OrderedDict()

        def budget(kind: str, quota: int) -> Any:
            title = f"vault {self._host}'s {kind}"
            return budgets.of(title, per_minute=6 * quota * quotas.STEADY, burst=quota * quotas.BURST)

        self._all, self._sets = budget("requests", quotas.all), budget("new versions", quotas.sets)

    async def attempt(
        self,
        operation: str,
        call: Call[T],
        *,
        about: str | None,
        unless: Collection[str] = (),
        fence: Fence | None = None,
        check: Callable[[], Awaitable[T | None]] | None = None,
    ) -> Answer[T] | AzureRefusal:
        """Make a request; return its answer, or a refusal with one of the codes in `unless`.

        Args:
            operation: the API's name of it.
            call: makes it with the SDK's client.
            about: the secret that it names.
            unless: codes that are the caller's to judge.
            fence: checked right before each attempt; for requests that change something.
            check: awaited before each attempt; what it returns other than None is the result.
        """
        budgets = (self._all, self._sets) if operation == "SetSecret" else (self._all,)

        async def before(_: int) -> Answer[T] | None:
            if check is not None and (result := await check()) is not None:
                return Answer(result, at=None)
            for budget in budgets:
                await budget.take(within=BUDGET_PATIENCE)
            return None

        async def make(clients: Clients) -> Answer[T] | AzureRefusal:
            transport = self._clients.transport
            return await self._requests.attempt(
                operation,
                lambda: ask(transport, lambda: call(clients.secrets)),
                fence=fence,
                before=before,
                again=self._again,
            )

        clients = await self._clients.current()
        outcome = await make(clients)
        if isinstance(outcome, AzureRefusal) and outcome.unauthorized:
            outcome = await make(await self._clients.after(clients))
        if isinstance(outcome, AzureRefusal) and outcome.code not in unless:
            if outcome.throttled:
                self._all.slow_down(outcome.retry_after or THROTTLED_REST)
            raise self.told(outcome, operation, about)
        return outcome

    def told(self, refusal: AzureRefusal, operation: str, about: str | None) -> ControllerError:
        """Return the error that a refusal means."""
        return told(refusal, operation=operation, about=about, login=self._login, host=self._host)

    async def listing(self) -> Mapping[str, Seen]:
        """Return the current version of every secret of the vault, by its name in lower case."""
        return {each.key: each for each in await self._all_pages("GetSecrets", None, _secrets)}

    async def versions(self, name: str) -> list[Seen]:
        """Return all versions of a secret, in no order; none of one that does not exist."""
        return await self._all_pages("GetSecretVersions", name, lambda client: _versions(client, name))

    async def current(self, name: str) -> Current | None:
        """Return a secret's current version, or None where there is no secret, or only a deleted one."""
        outcome = await self.attempt(
            "GetSecret", lambda client: client.get_secret(name), about=name, unless={NOT_FOUND, DISABLED}
        )
        if isinstance(outcome, Answer):
            properties, text = outcome.result.properties, outcome.result.value or ""
            seen = Seen.of(properties)
            just_now = seen.write is None and outcome.at is not None and seen.created >= outcome.at - 1.0
            return Current(properties, seen, SecretValue(text.encode()), await self.mark(seen), just_now)
        if outcome.code == NOT_FOUND:
            return None
        # What it is like is told by the vault's other answers only.
        described = await self._all_pages(
            "GetSecretVersions", name, lambda client: _versions(client, name), keep=lambda properties: properties
        )
        newest = max(described, key=lambda properties: Seen.of(properties).created, default=None)
        if newest is None:
            return None
        seen = Seen.of(newest)
        return Current(newest, seen, None, await self.mark(seen), just_now=False)

    async def mark(self, seen: Seen) -> OwnerMark | None:
        """Return whose the secret of a current version is, even if that was written by hand and carries no mark."""
        if seen.mark is not None or seen.edited:
            return seen.mark
        key = (seen.key, seen.created)
        if key not in self._inherited:
            self._inherited[key] = inherited_mark(seen, await self.versions(seen.name))
            if len(self._inherited) > MARKS_REMEMBERED:
                self._inherited.popitem(last=False)
        return self._inherited[key]

    async def deleted(self, names: Collection[str]) -> Mapping[str, Seen]:
        """Return those of the named secrets that are deleted but can be recovered, by their names in lower case."""
        wanted = {name.lower() for name in names}
        found: dict[str, Seen] = {}
        link: str | None = ""
        for _ in range(len(wanted) // DELETED_PAGES_SHARE):
            page, link = await self._page("GetDeletedSecrets", None, _deleted, link)
            found |= {each.key: each for each in map(_seen_deleted, page) if each.key in wanted}
            if link is None:
                return found
        looks = await together(self._deleted_one(name) for name in sorted(wanted - found.keys()))
        return found | {each.key: each for each in looks if each is not None}

    async def aclose(self) -> None:
        """Wait for requests under way, then end connections."""
        await self._requests.aclose()
        await self.kms.aclose()
        await self._logins.aclose()
        self._clients.close()

    async def _deleted_one(self, name: str) -> Seen | None:
        outcome = await self.attempt(
            "GetDeletedSecret", lambda client: client.get_deleted_secret(name), about=name, unless={NOT_FOUND}
        )
        return None if isinstance(outcome, AzureRefusal) else _seen_deleted(outcome.result)

    async def _all_pages(
        self, operation: str, about: str | None, pages: Call[Any], *, keep: Callable[[Any], Any] = Seen.of
    ) -> list[Any]:
        items: list[Any] = []
        link: str | None = ""
        while link is not None:
            page, link = await self._page(operation, about, pages, link)
            items += map(keep, page)
        return items

    async def _page(
        self, operation: str, about: str | None, pages: Call[Any], link: str | None
    ) -> tuple[list[Any], str | None]:
        """Return one page, and the link to the next one or None; the first one's link is empty."""

        def call(client: SecretClient) -> tuple[list[Any], str | None]:
            iterator = pages(client).by_page(continuation_token=link or None)
            return list(next(iterator)), iterator.continuation_token

        outcome = await self.attempt(operation, call, about=about)
        assert isinstance(outcome, Answer)  # No refusal was let through.
        return outcome.result

    def _again(self, refusal: calls.Refusal) -> bool:
        if refusal.retry_after is not None:
            self._all.slow_down(refusal.retry_after)
        return refusal.passing


def _secrets(client: SecretClient) -> Any:
    return client.list_properties_of_secrets(max_page_size=PAGE)


def _versions(client: SecretClient, name: str) -> Any:
    return client.list_properties_of_secret_versions(name, max_page_size=PAGE)


def _deleted(client: SecretClient) -> Any:
    return client.list_deleted_secrets(max_page_size=PAGE)


def _seen_deleted(secret: Any) -> Seen:
    return Seen.of(secret.properties)
