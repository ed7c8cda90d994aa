"""Google Secret Manager.

What is sent, for 100 secrets that one object owns: one ListSecrets and 100 GetSecretVersion when nothing changed; four
requests more for each value that is written (GetSecret, AccessSecretVersion, UpdateSecret, AddSecretVersion), two for
each new secret (CreateSecret, AddSecretVersion), two for each pruned one (GetSecret, DeleteSecret).

AddSecretVersion has no precondition. So a write claims the secret first: it puts its id into an annotation, with the
etag that the pass saw. Of two members of ours who write the same secret, one fails there. Whoever writes by hand claims
nothing: what he adds between our look at the next number and our own version is overwritten, as the next pass would
overwrite it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lease_sharding.fence import Fence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteValue
from secret_manager_controller.model.secret import SecretName, Version
from secret_manager_controller.providers.budget import SHARED_BUDGETS, Budgets
from secret_manager_controller.providers.calls import RetryPolicy, together, unobserved
from secret_manager_controller.providers.gcp_api import Message
from secret_manager_controller.providers.gcp_client import GcpClient, Outcome, name_of, number_of
from secret_manager_controller.providers.gcp_declared import Declared
from secret_manager_controller.providers.gcp_errors import EXISTS, NOT_FOUND, PRECONDITION, TIMED_OUT, GcpRefusal
from secret_manager_controller.providers.gcp_kms import GcpKms
from secret_manager_controller.providers.gcp_login import (
    GcpCredentialsFile,
    GcpEndpoints,
    GcpFederation,
    GcpKey,
    GcpKeyFile,
    GcpLogin,
    GcpMetadata,
    GcpQuotas,
    GcpReplication,
)
from secret_manager_controller.providers.gcp_marks import KEPT_ANNOTATION, WRITE_ANNOTATION, annotations_of, labels_of
from secret_manager_controller.providers.gcp_project import SHARED_PROJECTS, GcpProject, mark_on
from secret_manager_controller.providers.gcp_retention import disable, retire
from secret_manager_controller.providers.lending import Lender
from secret_manager_controller.providers.protocol import CallObserver
from secret_manager_controller.providers.writes import write_id

__all__ = [
    "GcpCredentialsFile",
    "GcpEndpoints",
    "GcpFederation",
    "GcpKey",
    "GcpKeyFile",
    "GcpLogin",
    "GcpMetadata",
    "GcpProvider",
    "GcpQuotas",
    "GcpReplication",
]

FEW_NAMES = 10
"""Up to so many names that no listing of ours showed are looked at one by one; for more, all secrets are listed."""
UNSEEN_VERSIONS = 5
"""Versions beyond the one that a pass saw that are followed by their numbers, which are never out of date."""


class GcpProvider:
    """One login to Google Secret Manager in one project; a `Provider`.

    Args:
        project: the project's id.
        login: how to get tokens.
        endpoints: where the services are.
        location: makes the secrets regional ones of this location.
        replication: where new global secrets are kept, and the keys of all; None lets Google choose.
        labels: of every secret that is written, beside the owner mark.
        keep_versions: how many versions of a secret stay enabled; None keeps all.
        quotas: what the project allows.
        budgets: shared by all who use the project.
        on_call: told of every request.
        retries: how often a request is made.
        shared: lends requests, listings and what is known to all who use the project with this login.
    """

    def __init__(
        self,
        *,
        project: str,
        login: GcpLogin,
        endpoints: GcpEndpoints = GcpEndpoints(),  # noqa: B008 - it is frozen.
        location: str | None = None,
        replication: GcpReplication | None = None,
        labels: Mapping[str, str] | None = None,
        keep_versions: int | None = None,
        quotas: GcpQuotas = GcpQuotas(),  # noqa: B008 - it is frozen.
        budgets: Budgets = SHARED_BUDGETS,
        on_call: CallObserver = unobserved,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is frozen.
        shared: Lender[GcpProject] = SHARED_PROJECTS,
    ) -> None:
        def make() -> GcpProject:
            client = GcpClient(
                project=project,
                location=location,
                login=login,
                endpoints=endpoints,
                quotas=quotas,
                budgets=budgets,
                on_call=on_call,
                retries=retries,
            )
            return GcpProject(client)

        self._declared = Declared(labels=labels, replication=replication, regional=location is not None)
        self._keep_versions = keep_versions
        self._lender, self._left = shared, False
        self._key = (project, location, login, endpoints, quotas, budgets, on_call, retries)
        self._project = shared.enter(self._key, make)
        self._client, self._listing = self._project.client, self._project.listing
        self._looks = self._project.looks

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at the named secrets and at all that carry `mark`; see `Provider.observe`.

        The listing, which may be shared, tells marks; the version of each secret is looked up, see `gcp_looks`.
        """
        annotations_of(mark)  # A mark that cannot be written is refused before anything is asked.
        wanted = frozenset(names)
        found = (await self._listing.of(mark, since=since)).of(mark, wanted)  # It may list several owners'.
        missing = wanted - found.keys()
        found |= {name: secret for secret in await self._unlisted(missing) if (name := name_of(secret)) in missing}
        self._project.etags |= {name: str(secret.etag) for name, secret in found.items()}
        seen = await self._looks.of(found)
        return ObservedState({name: self._remote(secret, seen[name].version) for name, secret in found.items()})

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read current values, one a request; see `Provider.read`."""
        names = [remote.name for remote in secrets]
        values = await together(map(self._project.value, names))
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret with its mark, then add its value; see `Provider.create`."""
        name, claim = secret.name, self._claim(secret, 0, mark, revision)
        resource = _marked(self._declared.of_new(), self._brought_down, mark, claim)
        with self._listing.written(mark):
            outcome = await self._client.attempt(
                "CreateSecret",
                about=name,
                unless={EXISTS},
                fence=fence,
                parent=self._client.parent,
                secret_id=name,
                secret=resource,
            )
        if isinstance(outcome, GcpRefusal):
            existing = await self._client.secret(name)
            if existing is None:
                raise self._changed(name)
            if mark_on(existing) != mark:
                raise PermanentError(Reason.CONFLICT, f"{name!r} was created by someone else meanwhile")
            # Ours, from an attempt whose answer was lost. It counts if it holds this value; without any value, if the
            # attempt was this one: another member may be about to add his.
            value = await self._client.value(name)
            if isinstance(value, RemoteValue) and value.value == secret.value:
                return self._wrote(name, number_of(value.version))
            if not isinstance(value, GcpRefusal) or value.code != NOT_FOUND or not _claimed(existing, claim):
                raise self._changed(name)
            etag = str(existing.etag)
        else:
            etag = str(outcome.etag)
        return await self._add(secret, 1, fence, etag=etag)

    async def update(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        """Claim the secret, then add a version; see `Provider.update`."""
        name = secret.name
        number = (await self._client.state(name))[0] if current.version is None else int(current.version)
        held = await self._client.secret(name)
        if held is None or mark_on(held) != mark:
            raise self._changed(name)
        claim = self._claim(secret, number, mark, revision)
        ours = _claimed(held, claim)
        if not ours and held.etag not in {self._project.etags.get(name, held.etag), self._project.own_etags.get(name)}:
            raise self._changed(name)
        following = await self._following(name, number)
        if following is not None:
            # Added since the look, or by an attempt of ours whose answer was lost. It counts if it holds this value.
            if following.value != secret.value:
                raise self._changed(name)
            return self._wrote(name, number_of(following.version))
        etag = str(held.etag) if ours else await self._mark(held, mark, fence, claim=claim)
        version = await self._add(secret, number + 1, fence, etag=etag)
        if self._keep_versions is not None:
            await retire(self._client, name, keep=self._keep_versions, fence=fence)
        return version

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Put our mark, and what the object declares, on a secret; see `Provider.adopt`.

        Raises:
            RetryableError: StoreChanged: it is not marked any more as it was seen.
        """
        held = await self._client.secret(current.name)
        if held is None or mark_on(held) not in {mark, current.mark}:
            raise self._changed(current.name)
        if mark_on(held) != mark or self._declared.differs(held):
            self._project.own_etags[current.name] = await self._mark(held, mark, fence)
        elif self._keep_versions is not None and self._keeps_more(held):
            keep = self._keep_versions
            if not await disable(self._client, current.name, keep=keep, fence=fence):
                return  # The next pass goes on.
            etag = await self._mark(held, mark, fence, beside=self._brought_down)
            self._project.own_etags[current.name] = etag

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Delete a secret for good; see `Provider.delete`.

        Raises:
            RetryableError: StoreChanged: it is not marked any more as it was seen.
        """
        name = current.name
        held = await self._client.secret(name)
        if held is not None:
            if mark_on(held) != current.mark:
                raise self._changed(name)
            with self._listing.written(current.mark):
                outcome = await self._client.attempt(
                    "DeleteSecret",
                    about=name,
                    unless={NOT_FOUND, PRECONDITION},
                    fence=fence,
                    name=self._client.path(name),
                    etag=held.etag,
                )
            if isinstance(outcome, GcpRefusal) and outcome.code == PRECONDITION:
                raise self._changed(name)
        self._project.forget(name)

    @property
    def key_service(self) -> GcpKms:
        """Cloud KMS, whatever project a key is in."""
        return self._client.kms

    async def aclose(self) -> None:
        """Give back what is shared; the last one waits for requests under way and ends the connection."""
        if not self._left:
            self._left = True
            await self._lender.leave(self._key)

    def _remote(self, secret: Message, version: Version | None) -> RemoteSecret:
        differs = self._declared.differs(secret) or self._keeps_more(secret)
        return RemoteSecret(name_of(secret), version, mark_on(secret), options_differ=differs)

    @property
    def _brought_down(self) -> Mapping[str, str]:
        """The annotation of a secret that has no more enabled versions than are kept."""
        return {} if self._keep_versions is None else {KEPT_ANNOTATION: str(self._keep_versions)}

    def _keeps_more(self, secret: Message) -> bool:
        return not self._brought_down.items() <= dict(secret.annotations).items()

    async def _unlisted(self, names: Collection[SecretName]) -> Collection[Message]:
        """Return those of the named secrets that exist, although no listing of ours showed them."""
        if len(names) > FEW_NAMES:
            return await self._listing.everything()
        return [secret for secret in await together(map(self._client.secret, names)) if secret is not None]

    async def _following(self, name: SecretName, number: int) -> RemoteValue | None:
        """Return the newest version after `number`, or None where that is the newest.

        Raises:
            RetryableError: StoreChanged: there are many, or the newest cannot be read.
        """
        newest: RemoteValue | None = None
        for following in range(number + 1, number + 1 + UNSEEN_VERSIONS):
            value = await self._client.value(name, str(following))
            if isinstance(value, RemoteValue):
                newest = value
            elif value.code == NOT_FOUND:
                return newest
            else:
                break
        raise self._changed(name)

    async def _mark(
        self,
        held: Message,
        mark: OwnerMark,
        fence: Fence,
        *,
        claim: str | None = None,
        beside: Mapping[str, str] | None = None,
    ) -> str:
        """Write mark, claim and other annotations beside whatever else stands there; return the new etag.

        Raises:
            RetryableError: StoreChanged: somebody changed the secret since it was `held`.
        """
        name = name_of(held)
        fields = _marked(self._declared.over(held), {**held.annotations, **(beside or {})}, mark, claim)
        with self._listing.written(mark):
            outcome = await self._client.attempt(
                "UpdateSecret",
                about=name,
                unless={NOT_FOUND, PRECONDITION},
                fence=fence,
                secret={"name": self._client.path(name), "etag": held.etag, **fields},
                update_mask={"paths": list(fields)},
            )
        if not isinstance(outcome, GcpRefusal):
            return str(outcome.etag)
        now = await self._client.secret(name)
        # Ours, if an earlier attempt was carried out and its answer lost.
        if (
            now is None
            or mark_on(now) != mark
            or self._declared.differs(now)
            or (claim is not None and not _claimed(now, claim))
        ):
            raise self._changed(name)
        return str(now.etag)

    async def _add(self, secret: DesiredSecret, number: int, fence: Fence, *, etag: str) -> Version:
        """Add a version, which should get the given number, to a secret whose claim left it with `etag`.

        An answer that is lost leaves it open whether the version was added: that is looked up by its number before
        another attempt. After a time-out there is none, since the version may still be added.
        """
        name = secret.name

        async def added() -> Outcome | None:
            value = await self._client.value(name, str(number))
            return value if isinstance(value, RemoteValue) and value.value == secret.value else None

        outcome = await self._client.add(
            name, secret.value, recheck=added, final={TIMED_OUT}, unless={NOT_FOUND, TIMED_OUT}, fence=fence
        )
        if isinstance(outcome, GcpRefusal):
            if outcome.code == NOT_FOUND:
                raise self._changed(name)
            if await added() is None:
                raise self._client.told(outcome, "AddSecretVersion", name)
        elif not isinstance(outcome, RemoteValue):
            number = number_of(outcome.name)
        self._project.own_etags[name] = etag
        return self._wrote(name, number)

    def _wrote(self, name: SecretName, number: int) -> Version:
        self._looks.note(name, number)
        return Version(str(number))

    def _changed(self, name: SecretName) -> RetryableError:
        """Return the error of a secret that is not as it was seen; the next pass looks at it first."""
        self._looks.forget(name)
        self._listing.forget()
        return RetryableError(Reason.STORE_CHANGED, f"{foreign(repr(name))} was changed by someone else meanwhile")

    def _claim(self, secret: DesiredSecret, number: int, mark: OwnerMark, revision: str) -> str:
        identity = write_id(secret, previous=str(number), mark=mark, revision=revision)
        return f"{identity}.{self._project.writer}"


def _claimed(secret: Message, claim: str) -> bool:
    return bool(secret.annotations.get(WRITE_ANNOTATION) == claim)


def _marked(
    fields: dict[str, object], annotations: Mapping[str, str], mark: OwnerMark, claim: str | None
) -> dict[str, object]:
    """Return a secret's fields with the owner mark and the claim of a write in them."""
    labels = fields["labels"]
    assert isinstance(labels, dict)  # `Declared` always tells them.
    marked = {"labels": labels | labels_of(mark), "annotations": dict(annotations) | annotations_of(mark, write=claim)}
    return fields | marked
