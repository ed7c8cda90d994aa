"""`Reconciler` without a cluster: a directory for the source, the process's environment for the logins."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lease_sharding.fence import Fence
from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.cli.keyfiles import GivenKeys, read_keys
from secret_manager_controller.cli.manifests import Manifest
from secret_manager_controller.cli.options import OneShotOptions
from secret_manager_controller.cli.terminal import note
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.errors import ControllerError, Reason
from secret_manager_controller.grants import Grants, Tenancy
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.spec import Spec, parse_spec
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.providers.registry import PROVIDERS, Login, store_name
from secret_manager_controller.providers.settings import Environment
from secret_manager_controller.reconcile import Prepared, Reconciler
from secret_manager_controller.render.kustomize import DEFAULT_BINARY, Kustomize
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.request import Progress, Request
from secret_manager_controller.sources.worktree import WorktreeSource
from secret_manager_controller.tenancy import authorize
from secret_manager_controller.unwrapping import AllowedKeys, DataKeyFinder

HASH_KEY_BYTES = 32
NO_NAMESPACE = ""
"""Of the controller: there is none, and keys and logins come from this process."""

_HINTS: Mapping[Reason, str] = {
    Reason.KEY_UNAVAILABLE: "msmctl takes keys from --key-file, SOPS_AGE_KEY and SOPS_AGE_KEY_FILE",
    Reason.DECRYPTION_FAILED: "msmctl takes keys from --key-file, SOPS_AGE_KEY and SOPS_AGE_KEY_FILE",
    Reason.CREDENTIALS_UNAVAILABLE: "for msmctl, the controller's environment is its own",
}
"""What of an error's advice is different without a cluster."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What became of one object's plan.

    Attributes:
        request: what was asked of the reconciler; None where the spec could not be read.
        prepared: the plan; None where there is none.
        suspended: `spec.suspend` is true, so nothing is planned.
        error: why there is no plan.
    """

    manifest: Manifest
    request: Request | None = None
    prepared: Prepared | None = None
    suspended: bool = False
    error: ControllerError | None = None


class EnvironmentStores:
    """`Stores` for one process: logins come from the environment, whatever Secret a spec names."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._open: dict[str, Provider] = {}
        self._told = False

    async def open(self, spec: Spec, grants: Grants) -> tuple[Provider, str]:
        """Return the provider for an object's store, and the store's name.

        Raises:
            PermanentError: CredentialsUnavailable: the environment has no login.
        """
        if grants.credentials is not None and not self._told:
            note(
                f"the login to {spec.provider.type} is taken from this process's environment, not from Secret "
                f"{grants.credentials.namespace}/{grants.credentials.name}: there is no cluster to read it from"
            )
            self._told = True
        key = spec.provider.model_dump_json()
        if key not in self._open:
            factory = PROVIDERS[spec.provider.type]
            self._open[key] = factory(spec.provider, Login(None), self._environment, _ignore_call)
        return self._open[key], store_name(spec.provider)

    async def aclose(self) -> None:
        """Close every provider."""
        for provider in self._open.values():
            await provider.aclose()


class EveryOwnerLives:
    """`Owners` without a cluster: nobody here can know who is gone, so nothing that is marked is taken."""

    async def living(self, marks: Collection[OwnerMark]) -> frozenset[OwnerMark]:
        """Return all of the marks."""
        return frozenset(marks)


@dataclass(frozen=True, slots=True)
class OneShot:
    """Plans and applies manifests."""

    reconciler: Reconciler
    confirm_prune: bool

    async def plan(self, manifest: Manifest) -> Planned:
        """Work out the plan of one object; what is wrong with it is told in the result."""
        request: Request | None = None
        try:
            spec = parse_spec(manifest.body)
            if spec.suspend:
                return Planned(manifest, suspended=True)
            request = await self._request(manifest, spec)
            prepared = await self.reconciler.prepare(request, Progress())
            assert prepared is not None  # Only an inventory can be settled, and there is none.
            return Planned(manifest, request, prepared)
        except ControllerError as error:
            return Planned(manifest, request, error=with_hint(error))

    async def apply(self, planned: Planned, fence: Fence) -> Report:
        """Carry out exactly the plan that was shown.

        Raises:
            OwnershipLost: the fence closed; calls that were under way have ended.
        """
        request, prepared = planned.request, planned.prepared
        assert request is not None and prepared is not None  # noqa: PT018 - there is a plan, so there are both.
        return await self.reconciler.carry_out(request, prepared, fence)

    async def _request(self, manifest: Manifest, spec: Spec) -> Request:
        confirmed = manifest.confirm_prune
        if self.confirm_prune:
            grants = authorize(spec, namespace=manifest.namespace, tenancy=self.reconciler.tenancy)
            confirmed = (await self.reconciler.source.resolve(grants.source)).revision
        # What the object owns is not recorded anywhere but in the store: its owner marks tell.
        return Request(
            namespace=manifest.namespace,
            name=manifest.name,
            generation=1,
            spec=spec,
            inventory={},
            confirm_prune=confirmed,
        )


@asynccontextmanager
async def one_shot(what: OneShotOptions, environment: Environment | None = None) -> AsyncIterator[OneShot]:
    """Wire a reconciler that needs no cluster.

    Raises:
        CliError: a SOPS key is not usable, or SOPS_KMS_KEYS has no keys.
    """
    env = os.environ if environment is None else environment
    stores = EnvironmentStores(env)
    decryptor = Decryptor(HashKey(secrets.token_bytes(HASH_KEY_BYTES)))
    reconciler = Reconciler(
        source=WorktreeSource(what.source),
        keys=GivenKeys(read_keys(what.key_files, env)),
        stores=stores,
        owners=EveryOwnerLives(),
        renderer=Renderer(decryptor, Kustomize(decryptor, binary=env.get("KUSTOMIZE_BINARY") or DEFAULT_BINARY)),
        data_keys=DataKeyFinder(_allowed_keys(env)),
        cluster=what.cluster_id,
        tenancy=Tenancy(controller_namespace=NO_NAMESPACE),
    )
    try:
        yield OneShot(reconciler, what.confirm_prune)
    finally:
        await stores.aclose()


def _allowed_keys(env: Environment) -> AllowedKeys:
    try:
        return AllowedKeys.parse(env.get("SOPS_KMS_KEYS") or "")
    except ValueError as error:
        raise CliError(f"SOPS_KMS_KEYS: {error}") from None


def with_hint(error: ControllerError) -> ControllerError:
    """Return the error with what its advice means here."""
    if (hint := _HINTS.get(error.reason)) is None:
        return error
    return ControllerError(error.reason, f"{error.message} ({hint})")


def _ignore_call(*_: Any) -> None:
    """Take note of nothing: one process has no metrics."""
