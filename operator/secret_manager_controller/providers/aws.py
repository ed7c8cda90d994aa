"""AWS Secrets Manager.

What is sent, for 100 secrets that one object owns: one ListSecrets when nothing changed, which objects share; for each
value that is written two requests more, for each new secret one (CreateSecret), for each pruned one two
(DescribeSecret, DeleteSecret).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lease_sharding.fence import Fence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.inventory import MAX_SECRETS
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteState, RemoteValue
from secret_manager_controller.model.secret import SecretName, Version
from secret_manager_controller.providers import aws_clients
from secret_manager_controller.providers.aws_budget import AccountBudget, AwsQuotas
from secret_manager_controller.providers.aws_calls import Answer, Client, Requests
from secret_manager_controller.providers.aws_errors import EXPIRED, Refusal, told
from secret_manager_controller.providers.aws_keys import LoginKeys
from secret_manager_controller.providers.aws_kms import AwsKms
from secret_manager_controller.providers.aws_login import (
    AwsAccessKeys,
    AwsAssumedRole,
    AwsEndpoints,
    AwsLogin,
    AwsWebIdentity,
)
from secret_manager_controller.providers.aws_marks import filters_of, mark_of, tags_of, version_of
from secret_manager_controller.providers.aws_options import AwsDeclared
from secret_manager_controller.providers.aws_values import payload_of, value_of
from secret_manager_controller.providers.budget import SHARED_BUDGETS, Budgets
from secret_manager_controller.providers.calls import RetryPolicy, together, unobserved
from secret_manager_controller.providers.listing import Listing
from secret_manager_controller.providers.protocol import CallObserver

__all__ = [
    "AwsAccessKeys",
    "AwsAssumedRole",
    "AwsDeclared",
    "AwsEndpoints",
    "AwsLogin",
    "AwsProvider",
    "AwsQuotas",
    "AwsWebIdentity",
]

CURRENT = "AWSCURRENT"
PENDING = "SMC_PENDING"
"""Our own label for a version that is not current yet; AWSPENDING belongs to rotation."""
RECOVERY_DAYS = 30
"""How long a deleted secret can be restored: AWS's default, and the longest of the 7 to 30 days that it allows."""
LIST_PAGE = 100  # Most secrets that ListSecrets returns at once.
READ_BATCH = 20  # Most secrets that BatchGetSecretValue takes at once.
FEW_NAMES = 10
"""Up to so many names that the listing lacks are looked at one by one; for more, what begins like them is listed."""
LISTING_LAG = 300.0
"""Seconds after which a listing shows what was written (https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html)."""
VERSION_ATTEMPTS = 2  # A version id that is taken by another value gives way to one more.

NOT_FOUND = "ResourceNotFoundException"
EXISTS = "ResourceExistsException"
BAD_PARAMETER = "InvalidParameterException"
BAD_STATE = "InvalidRequestException"
"""Says that the secret is scheduled for deletion, or that another AWS service manages it."""


class AwsProvider:
    """One login to AWS Secrets Manager in one region; a `Provider`.

    Args:
        region: e.g. `eu-central-1`.
        login: access keys, or a role for the pod's token.
        endpoint_url: where Secrets Manager and STS are, together or each; None is AWS's own address.
        declared: what stands beside the values.
        quotas: what the account allows.
        budgets: shared by all who use the account.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self,
        *,
        region: str,
        login: AwsLogin,
        endpoint_url: str | AwsEndpoints | None = None,
        declared: AwsDeclared = AwsDeclared(),  # noqa: B008 - it is frozen.
        quotas: AwsQuotas = AwsQuotas(),  # noqa: B008 - it is frozen.
        budgets: Budgets = SHARED_BUDGETS,
        on_call: CallObserver = unobserved,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is frozen.
    ) -> None:
        self._login = login
        self._region = region
        if not isinstance(endpoint_url, AwsEndpoints):
            endpoint_url = AwsEndpoints(endpoint_url, endpoint_url, endpoint_url)
        self._endpoint_url = endpoint_url.secretsmanager
        place = endpoint_url.secretsmanager or region
        self._budget = AccountBudget(login, place=place, quotas=quotas, budgets=budgets)
        self._requests = Requests(place=place, on_call=on_call, retries=retries)
        self._logins = Requests(place=f"login of {login.title}", on_call=on_call, retries=retries)
        self._declared = declared
        self._listing = Listing(
            self._list, name_of=lambda remote: remote.name, mark_of=lambda remote: remote.mark, page=LIST_PAGE
        )
        # Names that we wrote lately: that a listing lacks them says nothing.
        self._wrote: OrderedDict[SecretName, float] = OrderedDict()
        self._keys = LoginKeys(login, region=region, endpoints=endpoint_url, requests=self._logins)
        self._kms = AwsKms(
            self._keys, login=login.title, endpoint_url=endpoint_url.kms, on_call=on_call, retries=retries
        )

    @property
    def key_service(self) -> AwsKms:
        """AWS KMS, in the region of each key."""
        return self._kms

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at the named secrets and at all that carry `mark`; see `Provider.observe`.

        The listing, which may be 5 minutes old, tells versions and marks of 100 secrets a request. Of many names that
        it lacks, those that another listing lacks too are taken for new ones: CreateSecret finds out.
        """
        tags_of(mark)  # A mark that no tag can hold would be a filter that matches others.
        wanted = frozenset(names)
        # The filters match prefixes: an object `team/app` also gets what `team/app-2` owns.
        found = (await self._listing.of(mark, since=since)).of(mark, wanted)
        return ObservedState(found | {remote.name: remote for remote in await self._unlisted(wanted - found.keys())})

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read current values, 20 a request; see `Provider.read`."""
        names = [remote.name for remote in secrets]
        if len(names) == 1:
            return await self._read_one(names[0])
        batches = [names[at : at + READ_BATCH] for at in range(0, len(names), READ_BATCH)]
        values: dict[SecretName, RemoteValue] = {}
        for batch in await together(self._read_batch(batch) for batch in batches):
            values |= batch
        return values

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret with value and mark in one request; see `Provider.create`."""
        version = version_of(secret, previous=None, mark=mark, revision=revision)
        new = {"Name": secret.name, "ClientRequestToken": version, "Tags": tags_of(mark, beside=self._declared.tags)}
        with self._writing(secret.name, mark):
            outcome = await self._try(
                "CreateSecret",
                new | self._declared.of_new() | payload_of(secret.value),
                unless={EXISTS, BAD_STATE},
                fence=fence,
            )
        if not isinstance(outcome, Refusal):
            return version
        remote = await self._describe(secret.name)
        if remote is None or remote.state is RemoteState.DELETION_SCHEDULED:
            raise self._changed(secret.name)
        if remote.mark != mark:
            raise PermanentError(Reason.CONFLICT, f"{secret.name!r} was created by someone else meanwhile")
        # Ours, from an attempt whose answer was lost. It counts if it holds this value.
        value = (await self._read_one(secret.name)).get(secret.name)
        if value is None or value.value != secret.value:
            raise self._changed(secret.name)
        return value.version

    async def update(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        """Put a version beside the current one, then move AWSCURRENT to it; see `Provider.update`.

        The move names the version that the label is taken from, and AWS refuses it if the label is elsewhere
        (https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html). AWS moves
        AWSPREVIOUS to that version by itself. SMC_PENDING stays on what we wrote last and goes to the next version with
        its put; versions that no label is left on are removed by AWS.
        """
        with self._writing(secret.name, mark):
            version = await self._replace(secret, current=current, mark=mark, revision=revision, fence=fence)
            if current.options_differ:
                await self._declare(secret.name, mark=mark, fence=fence)
        return version

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Put our tags and what is declared on a secret; see `Provider.adopt`."""
        with self._writing(current.name, mark):
            await self._declare(current.name, mark=mark, fence=fence, before=current.mark)

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Schedule a secret's deletion; see `Provider.delete`.

        Raises:
            RetryableError: StoreChanged: it is not marked any more as it was in the listing, which may be old.
        """
        now = await self._describe(current.name)
        if now is None or now.state is RemoteState.DELETION_SCHEDULED:
            return
        if now.mark != current.mark:
            raise self._changed(current.name)
        with self._writing(current.name, current.mark):
            outcome = await self._try(
                "DeleteSecret",
                {"SecretId": current.name, "RecoveryWindowInDays": RECOVERY_DAYS},
                unless={NOT_FOUND, BAD_STATE},
                fence=fence,
            )
        if isinstance(outcome, Refusal) and outcome.code == BAD_STATE:
            now = await self._describe(current.name)
            if now is not None and now.state is RemoteState.ACTIVE:
                raise self._told(outcome, "DeleteSecret", current.name)

    async def aclose(self) -> None:
        """Wait for requests under way; connections are shared and stay."""
        await self._listing.aclose()
        await self._requests.aclose()
        await self._logins.aclose()

    async def _list(self, cluster: str | None, owner: str | None) -> Sequence[RemoteSecret]:
        listed, _ = await self._pages(filters_of(cluster, owner))
        return listed

    async def _pages(
        self, filters: Sequence[Mapping[str, Any]], *, most: int | None = None
    ) -> tuple[list[RemoteSecret], bool]:
        """List what matches, in at most so many requests; return it, and whether that is all."""
        listed: list[RemoteSecret] = []
        query: dict[str, Any] = {"MaxResults": LIST_PAGE, "IncludePlannedDeletion": True, "Filters": filters}
        for made in itertools.count(1):
            page = await self._ask("ListSecrets", query)
            self._budget.learn(next((entry["ARN"] for entry in page["SecretList"]), None))
            listed.extend(self._remote(entry, entry.get("SecretVersionsToStages", {})) for entry in page["SecretList"])
            if not page.get("NextToken"):
                return listed, True
            if made == most:
                break
            query = {**query, "NextToken": page["NextToken"]}
        return listed, False

    async def _unlisted(self, names: Collection[SecretName]) -> Sequence[RemoteSecret]:
        """Return those of the named secrets that exist, although no listing of ours showed them."""
        lately = time.monotonic() - LISTING_LAG
        known = {name for name in names if self._wrote.get(name, -math.inf) >= lately}
        found: list[RemoteSecret] = []
        new = set(names) - known
        if len(new) > FEW_NAMES and (prefix := _common_prefix(new)):
            # It costs no more than a tenth of looking at each.
            by_name = [{"Key": "name", "Values": [prefix]}]
            listed, complete = await self._pages(by_name, most=len(new) // FEW_NAMES)
            found = [remote for remote in listed if remote.name in new]
            new = set() if complete else new - {remote.name for remote in found}
        looks = await together(self._describe(name) for name in sorted(known | new))
        return [*found, *(remote for remote in looks if remote is not None)]

    async def _describe(self, name: SecretName) -> RemoteSecret | None:
        outcome = await self._try("DescribeSecret", {"SecretId": name}, unless={NOT_FOUND})
        if isinstance(outcome, Refusal):
            return None
        self._budget.learn(outcome.get("ARN"))
        return self._remote(outcome, outcome.get("VersionIdsToStages", {}))

    async def _read_one(self, name: SecretName) -> dict[SecretName, RemoteValue]:
        outcome = await self._try("GetSecretValue", {"SecretId": name}, unless={NOT_FOUND, BAD_STATE})
        return {} if isinstance(outcome, Refusal) else {name: value_of(outcome)}

    async def _read_batch(self, names: Sequence[SecretName]) -> dict[SecretName, RemoteValue]:
        values: dict[SecretName, RemoteValue] = {}
        query: dict[str, Any] = {"SecretIdList": list(names)}
        while True:
            page = await self._ask("BatchGetSecretValue", query)
            values |= {SecretName(entry["Name"]): value_of(entry) for entry in page.get("SecretValues", [])}
            for error in page.get("Errors", []):
                if error["ErrorCode"] not in {NOT_FOUND, BAD_STATE}:
                    refusal = Refusal(error["ErrorCode"], status=400)
                    raise self._told(refusal, "BatchGetSecretValue", error["SecretId"])
            if not page.get("NextToken"):
                return values
            query = {**query, "NextToken": page["NextToken"]}

    async def _replace(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        if current.state is RemoteState.DELETION_SCHEDULED:
            current = await self._restore(current, fence)
        version, labels = await self._put(secret, current=current, mark=mark, revision=revision, fence=fence)
        if CURRENT in labels:
            return version  # The first version gets the label at once; so does a repetition find it.
        move = {"SecretId": secret.name, "VersionStage": CURRENT, "MoveToVersionId": version}
        if current.version is not None:
            move["RemoveFromVersionId"] = current.version
        outcome = await self._try(
            "UpdateSecretVersionStage", move, unless={BAD_PARAMETER, BAD_STATE, NOT_FOUND}, fence=fence
        )
        if isinstance(outcome, Refusal):
            now = await self._describe(secret.name)
            if now is None or now.version != version:
                raise self._changed_or_refused(outcome, "UpdateSecretVersionStage", before=current, now=now)
        return version

    async def _declare(
        self, name: SecretName, *, mark: OwnerMark, fence: Fence, before: OwnerMark | None = None
    ) -> None:
        """Put the mark and what is declared on a secret that is marked so already, or as it was seen `before`.

        Raises:
            RetryableError: StoreChanged: it is gone, or somebody else has it.
        """
        now = await self._try("DescribeSecret", {"SecretId": name}, unless={NOT_FOUND})
        if isinstance(now, Refusal) or now.get("DeletedDate") or mark_of(now.get("Tags", [])) not in {mark, before}:
            raise self._changed(name)
        tags = self._declared.missing_tags(now)
        if tags or mark_of(now.get("Tags", [])) != mark:
            await self._set("TagResource", {"SecretId": name, "Tags": tags_of(mark, beside=tags)}, fence)
        if changes := self._declared.differing(now):
            await self._set("UpdateSecret", {"SecretId": name, **changes}, fence)

    async def _set(self, operation: str, parameters: Mapping[str, Any], fence: Fence) -> None:
        outcome = await self._try(operation, parameters, unless={NOT_FOUND, BAD_STATE}, fence=fence)
        if isinstance(outcome, Refusal):
            raise self._changed(parameters["SecretId"])

    async def _restore(self, current: RemoteSecret, fence: Fence) -> RemoteSecret:
        outcome = await self._try("RestoreSecret", {"SecretId": current.name}, unless={NOT_FOUND}, fence=fence)
        restored = None if isinstance(outcome, Refusal) else await self._describe(current.name)
        if restored is None or restored.version != (current.version or restored.version):
            raise self._changed(current.name)
        return restored

    async def _put(
        self,
        secret: DesiredSecret,
        *,
        current: RemoteSecret,
        mark: OwnerMark,
        revision: str,
        fence: Fence,
        attempt: int = 0,
    ) -> tuple[Version, Sequence[str]]:
        """Add a version with our own label; return its id and the labels that it has then."""
        version = version_of(secret, previous=current.version, mark=mark, revision=revision, attempt=attempt)
        put = {"SecretId": secret.name, "ClientRequestToken": version, "VersionStages": [PENDING]}
        outcome = await self._try(
            "PutSecretValue", put | payload_of(secret.value), unless={EXISTS, BAD_STATE, NOT_FOUND}, fence=fence
        )
        if not isinstance(outcome, Refusal):
            return version, outcome.get("VersionStages", [])
        if outcome.code == EXISTS and attempt + 1 < VERSION_ATTEMPTS:
            # An attempt that was cut short left another value under this id: the same input was rendered otherwise.
            return await self._put(
                secret, current=current, mark=mark, revision=revision, fence=fence, attempt=attempt + 1
            )
        now = await self._describe(secret.name)
        raise self._changed_or_refused(outcome, "PutSecretValue", before=current, now=now)

    async def _ask(self, operation: str, parameters: Mapping[str, Any]) -> Answer:
        """Make a request that only reads and return its answer."""
        answer = await self._try(operation, parameters)
        assert not isinstance(answer, Refusal)  # None was let through.
        return answer

    async def _try(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        unless: Collection[str] = (),
        fence: Fence | None = None,
    ) -> Answer | Refusal:
        """Make a request; return its answer, or a refusal with one of the codes in `unless`."""
        keys = await self._keys.current()
        outcome = await self._make(operation, parameters, keys, fence)
        if isinstance(outcome, Refusal) and outcome.code in EXPIRED:
            others = await self._keys.after(keys)
            if others is not None:
                outcome = await self._make(operation, parameters, others, fence)
        if isinstance(outcome, Refusal) and outcome.code not in unless:
            raise self._told(outcome, operation, parameters.get("SecretId") or parameters.get("Name"))
        return outcome

    async def _make(
        self, operation: str, parameters: Mapping[str, Any], keys: AwsAccessKeys, fence: Fence | None
    ) -> Answer | Refusal:
        return await self._requests.make(
            self._client, operation, parameters, keys=keys, budget=self._budget, fence=fence
        )

    def _client(self) -> Client:
        return aws_clients.SHARED_CLIENTS.of("secretsmanager", region=self._region, endpoint_url=self._endpoint_url)

    def _remote(self, entry: Mapping[str, Any], labels: Mapping[str, Sequence[str]]) -> RemoteSecret:
        return RemoteSecret(
            name=SecretName(entry["Name"]),
            version=next((Version(version) for version, stages in labels.items() if CURRENT in stages), None),
            mark=mark_of(entry.get("Tags", [])),
            state=RemoteState.DELETION_SCHEDULED if entry.get("DeletedDate") else RemoteState.ACTIVE,
            options_differ=self._declared.differs(entry),
        )

    @contextlib.contextmanager
    def _writing(self, name: SecretName, mark: OwnerMark | None) -> Iterator[None]:
        """Let no listing that began before the end of this write be the truth about it."""
        with self._listing.written(mark):
            try:
                yield
            finally:
                self._wrote[name] = time.monotonic()
                self._wrote.move_to_end(name)
                if len(self._wrote) > MAX_SECRETS:
                    self._wrote.popitem(last=False)

    def _told(self, refusal: Refusal, operation: str, name: str | None) -> Exception:
        return told(refusal, operation=operation, about=name, login=self._login.title)

    def _changed(self, name: SecretName) -> RetryableError:
        self._listing.forget()  # It did not show that.
        return RetryableError(Reason.STORE_CHANGED, f"{foreign(repr(name))} was changed by someone else meanwhile")

    def _changed_or_refused(
        self, refusal: Refusal, operation: str, *, before: RemoteSecret, now: RemoteSecret | None
    ) -> Exception:
        """Return the error that a refused write means: the secret is not as it was, or AWS has another reason."""
        if now is None or (now.version, now.state) != (before.version, before.state):
            return self._changed(before.name)
        return self._told(refusal, operation, before.name)


def _common_prefix(names: Collection[str]) -> str:
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(one for one, _ in same)
