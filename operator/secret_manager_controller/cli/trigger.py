"""Asks the controller for a reconcile: a new value of the reconcile annotation, which it watches."""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.cli.clock import Clock
from secret_manager_controller.cli.cluster import ObjectKey, not_found, read_object, refused
from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.cli.terminal import note, say
from secret_manager_controller.cli.view import block, field
from secret_manager_controller.kube import Json, KubeClient, KubeError
from secret_manager_controller.model.annotations import RECONCILE, TRACEPARENT

FAILING = "Failed to trigger reconciliation"

PATCH_TRIES = 5
"""The controller may write the status between our look and our patch; each try looks anew."""
LONGEST_STAMP = 12
"""Digits: until the year 33658. A longer number is no timestamp of ours and is not counted on."""


@dataclass(frozen=True, slots=True)
class Triggered:
    """A reconcile that was asked for.

    Attributes:
        timestamp: the annotation's new value.
        body: the object with it.
    """

    timestamp: str
    body: Json


async def trigger(kube: KubeClient, key: ObjectKey, clock: Clock, *, traceparent: str | None = None) -> None:
    """Ask for a reconcile, and tell so.

    Args:
        kube: the cluster.
        key: the object.
        clock: what the annotation's value comes from.
        traceparent: the trace that the reconcile is to continue.

    Raises:
        NotFound: there is no such object.
        CliError: the API server refused.
    """
    say(f"🔄 Triggering reconciliation for SecretManagerConfig '{key}'...")
    triggered = await annotate(kube, key, clock, traceparent=traceparent)
    say("✅ Reconciliation triggered successfully", colour="green")
    say(f"   Resource: {key}")
    say(f"   Timestamp: {triggered.timestamp}")
    if block(triggered.body, "spec").get("suspend") is True:
        note("spec.suspend is true: nothing is reconciled until it is false")
    if (since := field(block(triggered.body, "metadata"), "deletionTimestamp")) is not None:
        note(f"the object is being deleted since {since}")


async def annotate(kube: KubeClient, key: ObjectKey, clock: Clock, *, traceparent: str | None = None) -> Triggered:
    """Write the annotation over the object as it was read, so that two callers never write one value."""
    for left in reversed(range(PATCH_TRIES)):
        body = await read_object(kube, key, failing=FAILING)
        metadata = block(body, "metadata")
        timestamp = next_timestamp(block(metadata, "annotations").get(RECONCILE), now=clock.now())
        annotations = {RECONCILE: timestamp, TRACEPARENT: traceparent}  # None removes an older one.
        patch = {"resourceVersion": metadata.get("resourceVersion"), "annotations": annotations}
        try:
            return Triggered(timestamp, await kube.merge_patch(key.path, {"metadata": patch}))
        except KubeError as error:
            if error.status == 404:
                raise await not_found(kube, key) from error
            if error.status != 409 or not left:
                raise refused(FAILING, error, verb="patch") from error
    raise CliError(FAILING)  # The last try returns or raises.


def next_timestamp(previous: object, *, now: float) -> str:
    """Return the Unix time, or the second after the previous timestamp: only a new value is a trigger."""
    if isinstance(previous, str) and previous.isascii() and previous.isdecimal() and len(previous) <= LONGEST_STAMP:
        return str(max(int(now), int(previous) + 1))
    return str(int(now))
