"""Requests to one project's Secret Manager: with the login's token, within the project's quotas, and read as facts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from lease_sharding.fence import Fence
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.observed import RemoteValue
from secret_manager_controller.model.secret import SecretName, SecretValue, Version
from secret_manager_controller.providers import calls
from secret_manager_controller.providers.budget import Budget, Budgets
from secret_manager_controller.providers.calls import Requests, RetryPolicy
from secret_manager_controller.providers.gcp_api import (
    ENABLED,
    Connection,
    Message,
    checksum,
    request,
    secret_manager_url,
)
from secret_manager_controller.providers.gcp_errors import EXPIRED, NOT_FOUND, PRECONDITION, GcpRefusal, told
from secret_manager_controller.providers.gcp_kms import GcpKms
from secret_manager_controller.providers.gcp_login import GcpEndpoints, GcpLogin, GcpQuotas
from secret_manager_controller.providers.gcp_tokens import Tokens
from secret_manager_controller.providers.protocol import CallObserver

LATEST = "latest"
LIST_PAGE = 5_000  # Secrets a page, some 2 MB; the service allows 25,000.
BUDGET_PATIENCE = 60.0  # Seconds that a request waits for the budget; a reconcile has five minutes.
THROTTLED_REST = 10.0  # Seconds without requests after the quota was exceeded all the same, if Google names none.

# Shares of a quota: in the long run, and at once after a rest. Together they stay below the whole in any minute. A pass
# without changes reads in one burst; a first sync writes for minutes.
_READ_SHARES = (0.5, 0.45)
_WRITE_SHARES = (0.7, 0.25)

_READS = frozenset({"ListSecrets", "GetSecret", "GetSecretVersion", "ListSecretVersions"})
_ACCESS = "AccessSecretVersion"

Outcome = Message | GcpRefusal


class GcpClient:
    """One login to Secret Manager in one project. Safe for concurrent use on one event loop.

    Args:
        project: the project's id.
        location: of regional secrets, or None for global ones.
        login: how to get tokens.
        endpoints: where the services are.
        quotas: what the project allows.
        budgets: shared by all who use the project.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self,
        *,
        project: str,
        location: str | None,
        login: GcpLogin,
        endpoints: GcpEndpoints,
        quotas: GcpQuotas,
        budgets: Budgets,
        on_call: CallObserver,
        retries: RetryPolicy,
    ) -> None:
        self._project = project
        self._login = login
        self.parent = f"projects/{project}" + ("" if location is None else f"/locations/{location}")
        self._requests = Requests("gcp", place=f"project {project}", on_call=on_call, retries=retries)
        self._logins = Requests("gcp", place=f"login of {login.title}", on_call=on_call, retries=retries)
        self._tokens = Tokens(login, endpoints=endpoints, requests=self._logins)
        self._connection = Connection(secret_manager_url(endpoints, location), roots=endpoints.roots)
        self.kms = GcpKms(self._tokens, login=login.title, endpoints=endpoints, on_call=on_call, retries=retries)

        def budget(kind: str, quota: int, shares: tuple[float, float]) -> Budget:
            steady, burst = shares
            title = f"Google Secret Manager's {kind} in project {project}"
            return budgets.of(title, per_minute=quota * steady, burst=quota * burst)

        self._reads = budget("reads", quotas.reads, _READ_SHARES)
        self._writes = budget("writes", quotas.writes, _WRITE_SHARES)

    def path(self, name: SecretName, version: str | None = None) -> str:
        """Return the resource name of a secret or of a version of it."""
        secret = f"{self.parent}/secrets/{name}"
        return secret if version is None else f"{secret}/versions/{version}"

    async def attempt(
        self,
        operation: str,
        *,
        about: str | None,
        unless: Collection[str] = (),
        fence: Fence | None = None,
        within: float = BUDGET_PATIENCE,
        urgent: bool = True,
        recheck: Callable[[], Awaitable[Outcome | None]] | None = None,
        final: Collection[str] = (),
        **fields: Any,
    ) -> Outcome:
        """Make a request; return its answer, or a refusal with one of the codes in `unless`.

        Args:
            operation: the API's name of it.
            about: the secret that it names.
            unless: codes that are the caller's to judge.
            fence: checked right before each attempt; for requests that change something.
            within: seconds to wait for the budget.
            urgent: whether it is for a change.
            recheck: awaited before each attempt but the first; what it returns other than None is the answer.
            final: codes after which no further attempt is made.
            fields: of the request's message.
        """
        budget = None if operation == _ACCESS else self._reads if operation in _READS else self._writes

        async def before(number: int) -> Outcome | None:
            if number > 1 and recheck is not None and (outcome := await recheck()) is not None:
                return outcome
            if budget is not None:
                await budget.take(within=within, urgent=urgent)
            return None

        def again(refusal: calls.Refusal) -> bool:
            if budget is not None and refusal.retry_after is not None:
                budget.slow_down(refusal.retry_after)
            return refusal.passing and refusal.code not in final

        async def make(token: str) -> Outcome:
            return await self._requests.attempt(
                operation,
                lambda: self._connection.ask(operation, message, token),
                fence=fence,
                before=before,
                again=again,
            )

        message = request(operation, **fields)
        token = await self._tokens.current()
        outcome = await make(token)
        if isinstance(outcome, GcpRefusal) and outcome.code == EXPIRED:
            outcome = await make(await self._tokens.after(token))
        if isinstance(outcome, GcpRefusal) and outcome.code not in unless:
            if outcome.throttled and budget is not None:
                budget.slow_down(outcome.retry_after or THROTTLED_REST)
            raise self.told(outcome, operation, about)
        return outcome

    def told(self, refusal: GcpRefusal, operation: str, about: str | None) -> ControllerError:
        """Return the error that a refusal means."""
        return told(refusal, operation=operation, about=about, login=self._login.title, project=self._project)

    async def secrets(self, filter: str) -> Sequence[Message]:  # noqa: A002 - the API's name.
        """Return all secrets that match a filter, from as many pages as there are."""
        found: list[Message] = []
        token = ""
        while True:
            page = await self.attempt(
                "ListSecrets", about=None, parent=self.parent, filter=filter, page_size=LIST_PAGE, page_token=token
            )
            assert not isinstance(page, GcpRefusal)  # None was let through.
            found.extend(page.secrets)
            token = page.next_page_token
            if not token:
                return found

    async def secret(self, name: SecretName) -> Message | None:
        """Return a secret's metadata, or None where there is no secret."""
        outcome = await self.attempt("GetSecret", about=name, unless={NOT_FOUND}, name=self.path(name))
        return None if isinstance(outcome, GcpRefusal) else outcome

    async def state(
        self, name: SecretName, version: str = LATEST, *, within: float = BUDGET_PATIENCE, urgent: bool = True
    ) -> tuple[int, bool]:
        """Return a version's number, 0 where there is none, and whether it is enabled.

        The newest may be out of date; what is looked up by its number is not.
        """
        outcome = await self.attempt(
            "GetSecretVersion",
            about=name,
            unless={NOT_FOUND},
            within=within,
            urgent=urgent,
            name=self.path(name, version),
        )
        return (0, False) if isinstance(outcome, GcpRefusal) else (number_of(outcome.name), outcome.state == ENABLED)

    async def value(self, name: SecretName, version: str = LATEST) -> RemoteValue | GcpRefusal:
        """Return a version's value with its number, or what says that there is none to read.

        NOT_FOUND: no such version; FAILED_PRECONDITION: it is disabled or destroyed.
        """
        outcome = await self.attempt(
            _ACCESS, about=name, unless={NOT_FOUND, PRECONDITION}, name=self.path(name, version)
        )
        if isinstance(outcome, GcpRefusal):
            return outcome
        return RemoteValue(Version(str(number_of(outcome.name))), SecretValue(outcome.payload.data))

    async def add(
        self,
        name: SecretName,
        value: SecretValue,
        *,
        recheck: Callable[[], Awaitable[Outcome | None]],
        final: Collection[str],
        unless: Collection[str],
        fence: Fence,
    ) -> Outcome:
        """Add a version with its checksum; see `attempt`."""
        data = value.expose()
        return await self.attempt(
            "AddSecretVersion",
            about=name,
            unless=unless,
            fence=fence,
            recheck=recheck,
            final=final,
            parent=self.path(name),
            payload={"data": data, "data_crc32c": checksum(data)},
        )

    async def aclose(self) -> None:
        """Wait for requests under way, then end the connection."""
        await self._requests.aclose()
        await self._logins.aclose()
        self._connection.close()
        await self.kms.aclose()


def name_of(secret: Message) -> SecretName:
    """Return a secret's name: its resource name begins with the project's number, whatever was asked with."""
    return SecretName(secret.name.rpartition("/")[2])


def number_of(version: str) -> int:
    """Return the number at the end of a version's resource name."""
    return int(version.rpartition("/")[2])
