"""Azure Key Vault.

What is sent, for 100 secrets that one object owns and that are alone in their vault: four GetSecrets when nothing
changed; for each value that is written two requests more (GetSecret, SetSecret), as for each new secret and each pruned
one (GetSecret, DeleteSecret).

SetSecret has no precondition and no token that makes it idempotent. So before each attempt the secret is read: the
current version must be the one that the pass saw, and one that an attempt of ours made is known by the id of the write
among its tags. What somebody writes between that read and our own version is overwritten, as the next pass would
overwrite it, and stays among the versions. What somebody writes after ours is drift, which the next listing shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from azure.keyvault.secrets import SecretClient, SecretProperties

from lease_sharding.fence import Fence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteState, RemoteValue
from secret_manager_controller.model.secret import SecretName, SecretValue, Version
from secret_manager_controller.providers.azure_declared import AzureDeclared
from secret_manager_controller.providers.azure_errors import IN_TRANSITION, NOT_FOUND, AzureRefusal
from secret_manager_controller.providers.azure_kms import AzureKms
from secret_manager_controller.providers.azure_login import (
    AzureClientSecret,
    AzureEndpoints,
    AzureFederation,
    AzureLogin,
)
from secret_manager_controller.providers.azure_marks import Seen, tags_of
from secret_manager_controller.providers.azure_shared import SHARED_VAULTS, SharedVault, SharedVaults
from secret_manager_controller.providers.azure_vault import AzureQuotas, VaultClient
from secret_manager_controller.providers.budget import SHARED_BUDGETS, Budgets
from secret_manager_controller.providers.calls import RetryPolicy, together, unobserved
from secret_manager_controller.providers.protocol import CallObserver
from secret_manager_controller.providers.writes import write_id

__all__ = [
    "AzureClientSecret",
    "AzureDeclared",
    "AzureEndpoints",
    "AzureFederation",
    "AzureLogin",
    "AzureProvider",
    "AzureQuotas",
]

RECOVERY_LOOKS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each look whether a deleted secret is back; Azure takes a few. Then the next pass goes on."""
SECOND_IS_OVER = 1.0
SETTLING_LOOKS = 5
"""Looks at a value that somebody writes anew all the time; then the next pass goes on."""


class AzureProvider:
    """One login to one vault; a `Provider`.

    Args:
        vault: the vault's name.
        login: how to get tokens.
        endpoints: where the vault and Entra ID are.
        declared: what every secret has beside its value.
        quotas: what the vault allows.
        budgets: shared by all who use the vault.
        on_call: told of every request.
        retries: how often a request is made.
        shared: lends requests and listings to all who use the vault with this login.
    """

    def __init__(
        self,
        *,
        vault: str,
        login: AzureLogin,
        endpoints: AzureEndpoints = AzureEndpoints(),  # noqa: B008 - it is frozen.
        declared: AzureDeclared = AzureDeclared(),  # noqa: B008 - it is frozen.
        quotas: AzureQuotas = AzureQuotas(),  # noqa: B008 - it is frozen.
        budgets: Budgets = SHARED_BUDGETS,
        on_call: CallObserver = unobserved,
        retries: RetryPolicy = RetryPolicy(),  # noqa: B008 - it is frozen.
        shared: SharedVaults = SHARED_VAULTS,
    ) -> None:
        def make() -> SharedVault:
            client = VaultClient(
                vault=vault,
                login=login,
                endpoints=endpoints,
                quotas=quotas,
                budgets=budgets,
                on_call=on_call,
                retries=retries,
            )
            return SharedVault(client)

        self._declared = declared
        self._lender, self._left = shared, False
        self._key = (vault, login, endpoints, quotas, budgets, on_call, retries)
        self._shared = shared.enter(self._key, make)
        self._vault = self._shared.client

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at the named secrets and at all that carry `mark`; see `Provider.observe`.

        The listing tells versions, marks and options. A name that it lacks is looked for among the deleted ones; that
        it does not exist is not confirmed on the one secret, since `create` reads before it writes.

        Raises:
            PermanentError: NameCollision: two of the names differ in case only, so that they are one secret.
        """
        tags_of(mark, write=None, beside=None)  # A mark that cannot be written is refused before anything is asked.
        wanted = _by_key(names)
        listed = (await self._shared.listed(wanted, since=since)).of(mark, wanted)
        found: dict[str, RemoteSecret] = {}
        named = [seen for key, seen in listed.items() if key in wanted]
        owners = await together(map(self._vault.mark, named))
        for seen, owner in zip(named, owners, strict=True):
            found[seen.key] = self._remote(wanted[seen.key], seen, owner)
        for seen in listed.values():
            if seen.key not in wanted:
                found[seen.key] = self._remote(SecretName(seen.name), seen, mark)
        gone = await self._vault.deleted([key for key in wanted if key not in found])
        for key, seen in gone.items():
            found[key] = RemoteSecret(wanted[key], seen.version, seen.mark, RemoteState.DELETION_SCHEDULED)
        return ObservedState({remote.name: remote for remote in found.values()})

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read current values, one a request; see `Provider.read`."""
        names = [remote.name for remote in secrets]
        values = await together(self._value(name) for name in names)
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret with value and mark in one request; see `Provider.create`."""
        write = write_id(secret, previous="create", mark=mark, revision=revision)

        async def check() -> _Look:
            now = await self._vault.current(secret.name)
            if now is None:
                return _Look()
            if now.mark != mark:
                raise PermanentError(Reason.CONFLICT, f"{secret.name!r} was created by someone else meanwhile")
            # Ours, from an attempt whose answer was lost. It counts if it holds this value.
            if now.value != secret.value:
                raise _changed(secret.name)
            return _Look(made=now.properties)

        return await self._set(secret, mark=mark, write=write, check=check, fence=fence)

    async def update(
        self, secret: DesiredSecret, *, current: RemoteSecret, mark: OwnerMark, revision: str, fence: Fence
    ) -> Version:
        """Set a value over the version that was seen; see `Provider.update`.

        A new version gets what the one before has beside the value: content type, dates, and the tags of others. What
        the object declares goes before that.
        """
        write = write_id(secret, previous=current.version or "unusable", mark=mark, revision=revision)
        if current.state is RemoteState.DELETION_SCHEDULED:
            await self._recover(secret.name, fence)

        async def check() -> _Look:
            now = await self._vault.current(secret.name)
            if now is None or now.mark != mark:
                raise _changed(secret.name)
            if now.seen.write == write and now.value == secret.value:
                return _Look(made=now.properties)
            if now.version != current.version:
                raise _changed(secret.name)
            return _Look(replaced=now.properties)

        return await self._set(secret, mark=mark, write=write, check=check, fence=fence)

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Put our tags on the current version, and what the object declares; see `Provider.adopt`.

        Raises:
            RetryableError: StoreChanged: it is not the version, or not marked any more, as it was seen.
        """
        now = await self._vault.current(current.name)
        if now is None or now.version != current.version or now.mark not in {current.mark, mark}:
            raise _changed(current.name)
        declared = self._declared
        if now.seen.mark == mark and not declared.differs(now.seen):
            return
        version, tags = now.properties.version, tags_of(mark, write=None, beside={**now.seen.tags, **declared.tags})
        outcome = await self._vault.attempt(
            "UpdateSecret",
            lambda client: client.update_secret_properties(current.name, version, tags=tags, **declared.changes()),
            about=current.name,
            unless={NOT_FOUND},
            fence=fence,
        )
        self._wrote(current.name)
        if isinstance(outcome, AzureRefusal):
            raise _changed(current.name)

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Delete a secret so that it can be recovered for as long as the vault keeps it; see `Provider.delete`.

        Raises:
            RetryableError: StoreChanged: it is not marked any more as it was seen.
        """
        now = await self._vault.current(current.name)
        if now is None:
            return
        if now.mark != current.mark:
            raise _changed(current.name)
        # The SDK's poller would wait for the end of the deletion only if it were asked to.
        await self._vault.attempt(
            "DeleteSecret",
            lambda client: client.begin_delete_secret(current.name).result(),
            about=current.name,
            unless={NOT_FOUND, *IN_TRANSITION},
            fence=fence,
        )
        self._wrote(current.name)

    @property
    def key_service(self) -> AzureKms:
        """The keys of every Key Vault, asked with this login."""
        return self._vault.kms

    async def aclose(self) -> None:
        """Let the last who uses the vault wait for requests under way, then end threads and connections."""
        if not self._left:
            self._left = True
            await self._lender.leave(self._key)

    def _remote(self, name: SecretName, seen: Seen, mark: OwnerMark | None) -> RemoteSecret:
        return RemoteSecret(name, seen.version, mark, options_differ=self._declared.differs(seen))

    async def _value(self, name: SecretName) -> RemoteValue | None:
        now = await self._vault.current(name)
        for _ in range(SETTLING_LOOKS):
            if now is None or not now.just_now:
                break
            # In the second in which it was made another version may follow that no listing tells from it.
            await asyncio.sleep(SECOND_IS_OVER)
            now = await self._vault.current(name)
        else:
            raise _changed(name)
        if now is None or now.value is None or now.version is None:
            return None
        return RemoteValue(now.version, now.value)

    async def _set(
        self,
        secret: DesiredSecret,
        *,
        mark: OwnerMark,
        write: str,
        check: Callable[[], Awaitable[_Look]],
        fence: Fence,
    ) -> Version:
        """Set a value, unless `check` finds that it was; return the version.

        Args:
            secret: what is set.
            mark: who sets it.
            write: the id of this write.
            check: looks at the secret before each attempt, and raises where it is not as it was seen.
            fence: checked right before each attempt.
        """
        name, text = secret.name, _text(secret.name, secret.value)
        look = _Look()

        async def look_again() -> SecretProperties | None:
            nonlocal look
            look = await check()
            return look.made

        def put(client: SecretClient) -> SecretProperties:
            old = look.replaced
            before = {} if old is None else old.tags or {}
            tags = tags_of(mark, write=write, beside={**before, **self._declared.tags})
            return client.set_secret(name, text, tags=tags, **self._declared.beside(old)).properties

        async with self._shared.lock(name.lower()):
            outcome = await self._vault.attempt(
                "SetSecret", put, about=name, unless=IN_TRANSITION, fence=fence, check=look_again
            )
        self._wrote(name)
        if isinstance(outcome, AzureRefusal):
            # It is deleted, or about to be, or about to be back: the next look tells.
            raise _changed(name)
        version = Seen.of(outcome.result).version
        if version is None:
            raise _changed(name)  # Somebody disabled it between two attempts of ours.
        return version

    async def _recover(self, name: SecretName, fence: Fence) -> None:
        """Bring a deleted secret back with all its versions, and wait until it can be written.

        Raises:
            RetryableError: StoreChanged: it is not back yet.
        """
        # Not found: it is back already, or gone for good, which the look tells.
        await self._vault.attempt(
            "RecoverDeletedSecret",
            lambda client: client.begin_recover_deleted_secret(name).result(),
            about=name,
            unless={NOT_FOUND, *IN_TRANSITION},
            fence=fence,
        )
        self._wrote(name)
        for pause in RECOVERY_LOOKS:
            await asyncio.sleep(pause)
            if await self._vault.current(name) is not None:
                return
        raise RetryableError(Reason.STORE_CHANGED, f"{foreign(repr(name))} is being recovered; it is tried again later")

    def _wrote(self, name: SecretName) -> None:
        self._shared.wrote(name.lower())


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look before a write found.

    Attributes:
        made: the version that an attempt before made.
        replaced: the version that is to be replaced, if there is one.
    """

    made: SecretProperties | None = None
    replaced: SecretProperties | None = None


def _by_key(names: Collection[SecretName]) -> dict[str, SecretName]:
    """Return the names by what Azure compares them by."""
    wanted: dict[str, SecretName] = {}
    for name in names:
        other = wanted.setdefault(name.lower(), name)
        if other != name:
            message = f"{foreign(repr(other))} and {foreign(repr(name))} are one secret in Azure; rename one of them"
            raise PermanentError(Reason.NAME_COLLISION, message)
    return wanted


def _text(name: SecretName, value: SecretValue) -> str:
    """Return a value as text, since Azure holds nothing else.

    Raises:
        PermanentError: StoreRefused: it is binary.
    """
    try:
        text = value.expose().decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        message = f"the value of {foreign(repr(name))} is binary, and Azure holds text only; encode it in Git (base64)"
        raise PermanentError(Reason.STORE_REFUSED, message) from None
    return text


def _changed(name: SecretName) -> RetryableError:
    return RetryableError(Reason.STORE_CHANGED, f"{foreign(repr(name))} was changed by someone else meanwhile")
