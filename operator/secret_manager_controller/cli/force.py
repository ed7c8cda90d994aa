"""`msmctl reconcile --force`: delete the object and wait until GitOps has made it anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from secret_manager_controller.cli.clock import Clock
from secret_manager_controller.cli.cluster import ObjectKey, read_object, refused
from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.cli.terminal import LiveLine, note, printable, say
from secret_manager_controller.cli.view import block
from secret_manager_controller.kube import Json, KubeClient, KubeError
from secret_manager_controller.model.annotations import DELETION_POLICY, FINALIZER

POLL_INTERVAL = 1.0
"""Seconds between two looks at the object: GitOps tools take seconds to minutes."""
PROGRESS_INTERVAL = 10
"""Seconds between two lines of progress."""
STABLE_TIME = 2.0
"""Seconds for a GitOps tool that applies in several steps to finish."""
DELETE_TRIES = 10
"""The controller may write the object between our look and the deletion; each try looks anew."""

ORPHAN = "Orphan"
LOGS_COMMAND = "kubectl logs -n microscaler-system -l app=secret-manager-controller --tail=50 -f"


async def recreate(kube: KubeClient, key: ObjectKey, clock: Clock, *, patience: float) -> None:
    """Delete the object, wait until it is there again, and tell both. The store is left alone.

    Args:
        kube: the cluster.
        key: the object.
        clock: passes the time.
        patience: seconds for the whole wait.

    Raises:
        NotFound: there is no such object.
        CliError: the API server refused, or the time is over.
    """
    say("🔄 Force reconciliation mode enabled", bold=True)
    say(f"   Resource: {key}")
    say()
    say(f"🗑️  Deleting SecretManagerConfig '{key}'...")
    uid = await _delete(kube, key)
    try:
        waiting = _Waiting(kube, key, clock, deadline=clock.elapsed() + patience, patience=patience)
        body = await waiting.until(lambda body: body is None or _uid(body) != uid, late=_held_message)
        say("   ✅ Resource deleted", colour="green")
        say()
        say("⏳ Waiting for GitOps to recreate resource...")
        say("   (This may take a few moments depending on GitOps sync interval)")
        body = await waiting.until(lambda body: body is not None, late=_missing_message)
        assert body is not None  # What was waited for.
        say(f"   ✅ Resource recreated (generation: {block(body, 'metadata').get('generation')})", colour="green")
        say()
        say("⏳ Waiting for resource to stabilize...")
        await clock.sleep(STABLE_TIME)
        say()
    except asyncio.CancelledError:
        note(f"SecretManagerConfig '{key}' was deleted; until GitOps makes it anew, nothing is reconciled")
        raise


def tell_logs() -> None:
    """Say where the controller tells what it does."""
    say()
    say("📊 Watching reconciliation logs...")
    say(f"   (Use '{LOGS_COMMAND}' to see detailed logs)")


async def _delete(kube: KubeClient, key: ObjectKey) -> str:
    """Delete the object exactly as it was seen, its deletion policy overridden if it has one; return its UID."""
    failing = f"Failed to delete SecretManagerConfig '{key}'"
    overridden = False
    for left in reversed(range(DELETE_TRIES)):
        body = await read_object(kube, key, failing=failing)
        try:
            if _cleans_store(body):
                body = await _override(kube, key, ORPHAN)
                overridden = True
            metadata = block(body, "metadata")
            await kube.delete(key.path, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        except KubeError as error:
            if error.status in (404, 409) and left:
                continue
            if overridden:
                # Else whoever deletes the object later would leave its secrets behind unknowingly.
                await _take_back(kube, key)
            raise refused(failing, error, verb="delete (--force) and patch") from error
        if overridden:
            note("deletionPolicy Delete is overridden for this deletion: the store keeps its secrets")
        return str(metadata["uid"])
    raise CliError(failing)  # The last try returns or raises.


async def _override(kube: KubeClient, key: ObjectKey, policy: str | None) -> Json:
    """Set the annotation that overrides the deletion policy, or remove it."""
    return await kube.merge_patch(key.path, {"metadata": {"annotations": {DELETION_POLICY: policy}}})


async def _take_back(kube: KubeClient, key: ObjectKey) -> None:
    try:
        await _override(kube, key, None)
    except KubeError as error:
        note(f"the annotation {DELETION_POLICY}={ORPHAN} stays on the object: {error.message}")


def _cleans_store(body: Json) -> bool:
    """Tell whether the controller would delete the object's secrets from the store along with it."""
    metadata = block(body, "metadata")
    deletes = block(body, "spec").get("deletionPolicy") == "Delete" or FINALIZER in (metadata.get("finalizers") or ())
    return deletes and block(metadata, "annotations").get(DELETION_POLICY) != ORPHAN


def _uid(body: Json) -> object:
    return block(body, "metadata").get("uid")


def _held_message(key: ObjectKey, body: Json | None) -> str:
    finalizers = block(body, "metadata").get("finalizers") or ()
    held = ", ".join(printable(name) for name in finalizers) or "nothing that is known"
    return (
        f"SecretManagerConfig '{key}' is being deleted and is held by {held}; see that the controller runs "
        f"(`{LOGS_COMMAND}`), then run this again"
    )


def _missing_message(key: ObjectKey, _: Json | None) -> str:
    return (
        f"SecretManagerConfig '{key}' was deleted and GitOps has not made it anew; see that the Flux Kustomization or "
        "Argo CD Application that holds it is not suspended, or apply its manifest"
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Looks at the object again and again, with one deadline for all there is to wait for."""

    kube: KubeClient
    key: ObjectKey
    clock: Clock
    deadline: float
    patience: float

    async def until(
        self, done: Callable[[Json | None], bool], *, late: Callable[[ObjectKey, Json | None], str]
    ) -> Json | None:
        """Return the object once `done` says so of it, or raise with what `late` says of it."""
        line, began, told = LiveLine(), self.clock.elapsed(), 0
        body, problem = await self._look(None)
        while problem is not None or not done(body):
            if self.clock.elapsed() >= self.deadline:
                line.clear()
                cause = f" ({problem.message})" if problem is not None else ""
                raise CliError(f"{late(self.key, body)}; waited {self.patience:g}s{cause}")
            await self.clock.sleep(POLL_INTERVAL)
            waited = int(self.clock.elapsed() - began)
            if waited - told >= PROGRESS_INTERVAL:
                told = waited - waited % PROGRESS_INTERVAL
                line.clear()
                say(f"   ⏳ Still waiting... ({told}s elapsed)")
            else:
                line.show(f"   ⏳ Still waiting... ({waited}s elapsed)")
            body, problem = await self._look(body)
        line.clear()
        return body

    async def _look(self, before: Json | None) -> tuple[Json | None, KubeError | None]:
        """Return the object; an API server that is away for a while is waited for like the object."""
        try:
            return await self.kube.get(self.key.path), None
        except KubeError as error:
            if error.status in (401, 403):
                raise refused(f"Failed to read SecretManagerConfig '{self.key}'", error, verb="get") from error
            return before, error
