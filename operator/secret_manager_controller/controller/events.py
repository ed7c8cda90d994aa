"""Kubernetes Events: told on change and on failure, never on a pass that found nothing to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from secret_manager_controller.controller.fenced import FencedKube
from secret_manager_controller.errors import Reason
from secret_manager_controller.kube import EVENTS, KubeError
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.spec import Spec, deprecations
from secret_manager_controller.model.status import KEY_EXPIRING, READY, UNTRACED, Status

logger = logging.getLogger(__name__)

Told = tuple[str, str, str]
"""Type, reason and message of an Event."""

COMPONENT = "secret-manager-controller"
NAME_PREFIX = 200
EVENT_NOTE_LIMIT = 1_024
"""Longest message in bytes that the API server takes."""


def event_of(previous: Status, status: Status, report: Report | None) -> Told | None:
    """Return type, reason and message of what is to be told, or None where nothing changed.

    Args:
        previous: the status before.
        status: the status after.
        report: what was written to the store, if the reconcile came so far.
    """
    before, after = previous.condition(READY), status.condition(READY)
    if after is None:
        return None
    if after.status != "True":
        told = before is not None and (before.reason, before.message) == (after.reason, after.message)
        return None if told else ("Warning", after.reason, after.message)
    if report is not None and report.changed:
        return "Normal", Reason.RECONCILIATION_SUCCEEDED, f"{changes_told(report)} ({status.last_applied_revision})"
    if before is not None and before.status != "True":
        return "Normal", after.reason, after.message
    return None


def warnings_of(spec: Spec, previous: Status, *, generation: int) -> tuple[Told, ...]:
    """Return what is told of a spec once for each change of it.

    Args:
        spec: as it is now.
        previous: the status before this reconcile.
        generation: of the spec.
    """
    if previous.observed_generation == generation:
        return ()
    return tuple(("Warning", Reason.DEPRECATED, sentence) for sentence in deprecations(spec))


def notices_of(previous: Status, status: Status) -> tuple[Told, ...]:
    """Return what is told of keys that expire and of traces that go nowhere, once for each change of it."""
    pairs = [(previous.condition(kind), status.condition(kind)) for kind in (KEY_EXPIRING, UNTRACED)]
    return tuple(
        ("Warning", after.reason, after.message)
        for before, after in pairs
        if after is not None and (before is None or before.message != after.message)
    )


def changes_told(report: Report) -> str:
    """Return what was written, in words: `created 3, updated 1`."""
    counts = {
        "created": report.created,
        "updated": report.updated,
        "adopted": report.adopted,
        "pruned": report.pruned,
    }
    return ", ".join(f"{verb} {len(names)}" for verb, names in counts.items() if names)


def name_prefix(name: str) -> str:
    """Return what an Event's name begins with: a name of 253 characters has to make room for what makes it unique."""
    return name[:NAME_PREFIX].rstrip(".-") + "-"  # Cut behind a dot, it would be no name.


async def publish(kube: FencedKube, body: Mapping[str, Any], event: Told, *, now: datetime) -> None:
    """Post an Event about an object; a refusal is logged, since Events are best effort by nature."""
    kind, reason, message = event
    metadata = body["metadata"]
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        await kube.create(
            EVENTS.url(metadata["namespace"]),
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": name_prefix(metadata["name"]), "namespace": metadata["namespace"]},
                "involvedObject": {
                    "apiVersion": body["apiVersion"],
                    "kind": body["kind"],
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                },
                "type": kind,
                "reason": reason,
                "message": message.encode()[:EVENT_NOTE_LIMIT].decode(errors="ignore"),
                "source": {"component": COMPONENT},
                "reportingComponent": COMPONENT,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
            },
        )
    except KubeError as error:
        logger.warning("Event not posted", extra={"object": metadata["name"], "status": error.status})
