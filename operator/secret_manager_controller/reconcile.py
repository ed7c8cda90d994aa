"""One reconcile: gather, decide, act. The steps are numbered as in docs/architecture.md."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lease_sharding.fence import Fence
from secret_manager_controller.apply import StoreSession, apply
from secret_manager_controller.compare import VersionMemory, compare
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.errors import ControllerError, Reason, RetryableError
from secret_manager_controller.grants import Access, Grants, Tenancy
from secret_manager_controller.model.desired import DesiredState, desired_state
from secret_manager_controller.model.inventory import Inventory, settled
from secret_manager_controller.model.names import STORE_RULES
from secret_manager_controller.model.observed import ObservedState, OwnerMark
from secret_manager_controller.model.plan import Plan, PlanPolicy, UpdatePolicy, cleanup_plan, make_plan, names_to_read
from secret_manager_controller.model.policy import Policy
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import Spec
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.render.renderer import Inputs, Renderer
from secret_manager_controller.request import Progress, Request, check_rollback, inputs_key, settled_key
from secret_manager_controller.sources.protocol import RevisionReplaced, Source
from secret_manager_controller.tenancy import decide
from secret_manager_controller.tracing import Attribute, step
from secret_manager_controller.unwrapping import AllowedKeys, DataKeyFinder


class Keys(Protocol):
    """Where SOPS keys come from."""

    async def find(self, namespaces: tuple[str, ...]) -> KeyRing:
        """Return the keys of the first namespace that has any, or an empty ring."""
        ...


class Stores(Protocol):
    """Where providers come from."""

    async def open(self, spec: Spec, grants: Grants) -> tuple[Provider, str]:
        """Return the provider for an object's store and login, and the store's name for `VersionMemory`."""
        ...


class Owners(Protocol):
    """Which owners live."""

    async def living(self, marks: Collection[OwnerMark]) -> frozenset[OwnerMark]:
        """Return those of the marks whose object exists, or may exist."""
        ...


class Policies(Protocol):
    """Which policies there are."""

    async def of(self, namespace: str) -> Sequence[Policy]:
        """Return the policies for a namespace as they are now.

        Raises:
            RetryableError: StoreUnavailable: the namespace's labels cannot be read.
        """
        ...


class NoPolicies:
    """`Policies` where there are none: in mode shared, and without a cluster."""

    async def of(self, namespace: str) -> Sequence[Policy]:  # noqa: ARG002 - the protocol's signature.
        """Return none."""
        return ()


MAX_LOOKS = 50_000
"""Objects whose last look is remembered: 100 bytes each; who is forgotten looks once more."""


class Looks:
    """When each object's store was last looked at: in memory, so that a restart looks at all of them.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: OrderedDict[str, float] = OrderedDict()

    def record(self, key: str) -> None:
        """Note that an object's store is looked at now."""
        self._last[key] = self._clock()
        self._last.move_to_end(key)
        if len(self._last) > MAX_LOOKS:
            self._last.popitem(last=False)

    def recent(self, key: str, interval: float) -> bool:
        """Tell whether an object's store was looked at within the interval."""
        last = self._last.get(key)
        return last is not None and self._clock() - last < interval


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What every reconcile needs; all of it shared by all objects."""

    source: Source
    keys: Keys
    stores: Stores
    owners: Owners
    renderer: Renderer
    cluster: str
    tenancy: Tenancy
    policies: Policies = field(default_factory=NoPolicies)
    memory: VersionMemory = field(default_factory=VersionMemory)
    data_keys: DataKeyFinder = field(default_factory=lambda: DataKeyFinder(AllowedKeys()))
    looks: Looks = field(default_factory=lambda: Looks(time.monotonic))

    async def reconcile(
        self,
        request: Request,
        fence: Fence,
        progress: Progress,
        *,
        access: Access | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> Report | None:
        """Make the store equal to Git.

        Args:
            request: the object.
            fence: stands before every effect.
            progress: filled on the way.
            access: what was decided about the object in this turn, if it was already.
            confirm: awaited before the store is changed; raises if the request is out of date.

        Returns:
            What was done, or None where the store still holds what was recorded and nothing else changed: no value was
            read, nothing fetched or decrypted.

        Raises:
            ControllerError: nothing was written; see `secret_manager_controller.errors`.
            OwnershipLost: the fence closed.
        """
        prepared = await self.prepare(request, progress, access)
        if prepared is None:
            return None
        if confirm is not None:
            await confirm()
        return await self.carry_out(request, prepared, fence)

    async def prepare(self, request: Request, progress: Progress, access: Access | None = None) -> Prepared | None:
        """Do steps 2-9: everything up to the plan. Writes nothing; see `reconcile` for the rest."""
        grants = (access or await self.access(request)).granted()
        grants.check_names(request.inventory)
        with step("resolve"):
            revision = await self.source.resolve(grants.source)
        try:
            return await self._prepared(request, progress, grants, revision)
        except RevisionReplaced:
            # The watch may be behind, or it was replaced while it was being fetched: then the newer one is there now.
            with step("resolve"):
                newer = await self.source.resolve(grants.source, fresh=True)
            if newer == revision:
                raise
        return await self._prepared(request, progress, grants, newer)

    async def _prepared(
        self, request: Request, progress: Progress, grants: Grants, revision: Revision
    ) -> Prepared | None:
        """Do steps 4-9 for a revision."""
        spec, me = request.spec, self.mark(request)
        progress.revision = revision.revision
        check_rollback(request, revision)
        progress.key_namespaces = grants.key_namespaces
        progress.keys = keys = await self.keys.find(grants.key_namespaces)
        progress.settled_key = settled_key(request, revision, keys, grants)
        provider, store = await self.stores.open(spec, grants)
        observed: ObservedState | None = None
        # What is to be looked at again, only in case, leaves the store's quota to what changed.
        occasion.set_urgent(request.look or request.settled_key != progress.settled_key)
        if request.settled_key == progress.settled_key:
            observed = await self._look(request, provider)
            if self._settled(request, observed):
                return None
        with step("fetch"):
            async with self.source.fetch(grants.source, revision) as snapshot:
                inputs = await self.renderer.gather(snapshot.confined(grants.source.paths), spec.secrets)
        progress.inputs_key = inputs_key(request, self.renderer.digest(inputs), keys)
        if observed is None and request.inputs_key == progress.inputs_key:
            # The commit touched nothing of this object. Whoever only followed it need not look at the store again.
            if not request.look and self.looks.recent(request.key, spec.interval_seconds):
                return None
            observed = await self._look(request, provider)
            if self._settled(request, observed):
                return None
        if wrapped := await self.renderer.needed_of_kms(inputs, keys):
            with step("unwrap", {Attribute.KEYS: len(wrapped)}):
                keys = await self.data_keys.extended(
                    keys,
                    wrapped,
                    service=provider.key_service,
                    namespace=request.namespace,
                    granted=grants.kms_keys,
                )
        desired = await self._desired(request, grants, inputs, keys)
        grants.check_names(desired.secrets)
        recorded = frozenset(request.inventory)
        names = recorded | desired.secrets.keys()
        if observed is None or names != recorded:
            with step("observe", {Attribute.STORE: store, Attribute.SECRETS: len(names)}):
                observed = await provider.observe(names, mark=me, since=request.since)
            self.looks.record(request.key)
        with step("plan"):
            plan = await self._plan(request, revision, desired, observed, provider, store)
        return Prepared(plan, provider, store, revision)

    async def carry_out(self, request: Request, prepared: Prepared, fence: Fence) -> Report:
        """Do step 10: apply the plan.

        Raises:
            OwnershipLost: the fence closed.
        """
        session = StoreSession(
            provider=prepared.provider,
            store=prepared.store,
            mark=self.mark(request),
            revision=prepared.revision.revision,
            fence=fence,
            memory=self.memory,
        )
        with step("apply", {Attribute.STORE: prepared.store, Attribute.CHANGES: len(prepared.plan.changes)}):
            return await apply(prepared.plan, request.inventory, session)

    async def cleanup(self, request: Request, fence: Fence) -> Report:
        """Delete everything that the object owns in its store, for `deletionPolicy: Delete`.

        Raises:
            ControllerError: the store could not be opened or looked at; nothing was deleted.
            OwnershipLost: the fence closed.
        """
        me = self.mark(request)
        grants = (await self.access(request)).granted()
        grants.check_names(request.inventory)
        provider, store = await self.stores.open(request.spec, grants)
        observed = await provider.observe(frozenset(request.inventory), mark=me)
        session = StoreSession(provider=provider, store=store, mark=me, revision="", fence=fence, memory=self.memory)
        return await apply(cleanup_plan(observed, me), request.inventory, session)

    async def access(self, request: Request) -> Access:
        """Do step 2: decide what an object may read and write, and whether its traces may go where its spec says."""
        try:
            policies = await self.policies.of(request.namespace)
        except ControllerError as error:
            return Access(error, error)
        return decide(request.spec, namespace=request.namespace, tenancy=self.tenancy, policies=policies)

    def mark(self, request: Request) -> OwnerMark:
        """Return the owner mark of an object."""
        return OwnerMark(self.cluster, request.key)

    async def _look(self, request: Request, provider: Provider) -> ObservedState:
        with step("observe", {Attribute.SECRETS: len(request.inventory)}):
            names = frozenset(request.inventory)
            observed = await provider.observe(names, mark=self.mark(request), since=request.since)
        self.looks.record(request.key)
        return observed

    def _settled(self, request: Request, observed: ObservedState) -> bool:
        create_only = request.spec.update_policy is UpdatePolicy.CREATE_ONLY
        return settled(request.inventory, observed, me=self.mark(request), ignore_versions=create_only)

    async def _desired(self, request: Request, grants: Grants, inputs: Inputs, keys: KeyRing) -> DesiredState:
        secrets = request.spec.secrets
        try:
            plaintext = await self.renderer.render(inputs, keys)
        except RetryableError as error:
            if error.reason is Reason.KEY_UNAVAILABLE and grants.missing_keys is not None:
                raise RetryableError(error.reason, f"{error.message}; {grants.missing_keys}") from error
            raise
        rules = STORE_RULES[request.spec.provider.type]
        return desired_state(plaintext, prefix=secrets.prefix, suffix=secrets.suffix, rules=rules)

    async def _plan(
        self,
        request: Request,
        revision: Revision,
        desired: DesiredState,
        observed: ObservedState,
        provider: Provider,
        store: str,
    ) -> Plan:
        me = self.mark(request)
        others = {remote.mark for remote in observed.secrets.values() if remote.mark is not None} - {me}
        policy = PlanPolicy(
            me=me,
            living_owners=await self.owners.living(others),
            adoption=request.spec.adoption,
            update_policy=request.spec.update_policy,
            prune=request.spec.prune,
            prune_confirmed=request.confirm_prune == revision.revision,
        )
        verdicts = await compare(
            names_to_read(desired, observed, request.inventory, policy),
            desired,
            provider=provider,
            store=store,
            memory=self.memory,
            remembered_ok=_as_recorded(observed, request.inventory),
        )
        return make_plan(desired, observed, request.inventory, policy, verdicts)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan and what carries it out."""

    plan: Plan
    provider: Provider
    store: str
    revision: Revision


def _as_recorded(observed: ObservedState, inventory: Inventory) -> frozenset[SecretName]:
    remotes: Mapping[SecretName, object] = {n: r.version for n, r in observed.secrets.items()}
    return frozenset(name for name, entry in inventory.items() if remotes.get(name) == entry.version)
