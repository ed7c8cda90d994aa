"""The status of an object: read defensively, derived from an outcome, written as a whole.

`summarize` is step 11's pure half; Kubernetes' conventions for conditions are in
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.history import History, remembered, went_back
from secret_manager_controller.model.inventory import Inventory, InventoryEntry
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.secret import SecretName, SourceHash, Version

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
KEY_EXPIRING = "KeyExpiring"
WENT_BACK = "WentBack"
UNTRACED = "Untraced"

OF_LAST_RECONCILE = frozenset({"lastReconcileTime", "lastStoreCalls", "lastTraceId"})
"""Fields that tell of the last reconcile alone, whatever came of it."""
TOLD_AFTER = timedelta(hours=1)
"""A reconcile that changes nothing is told by the first one after so long: 10,000 objects are 3 writes a second then,
where each of their passes would be 33."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One `metav1.Condition`."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str

    def as_json(self) -> dict[str, Any]:
        """Return it as the API server stores it."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": self.last_transition_time,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a SecretManagerConfig.

    Attributes:
        settled_key: fingerprint of all that the last complete reconcile depended on, or None if none was complete.
        inputs_key: the same with the files that the object reads in place of the whole revision.
        store_calls: requests to the store that the last reconcile made.
        history: revisions that were applied, see `secret_manager_controller.model.history`.
    """

    observed_generation: int | None = None
    last_reconcile_time: str | None = None
    last_handled_reconcile_at: str | None = None
    last_attempted_revision: str | None = None
    last_applied_revision: str | None = None
    settled_key: str | None = None
    inputs_key: str | None = None
    last_trace_id: str | None = None
    secrets_synced: int = 0
    store_calls: int = 0
    history: History = ()
    inventory: Inventory = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of that type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def as_json(self) -> dict[str, Any]:
        """Return it as the API server stores it; None removes a field in a merge patch."""
        return {
            "observedGeneration": self.observed_generation,
            "lastReconcileTime": self.last_reconcile_time,
            "lastHandledReconcileAt": self.last_handled_reconcile_at,
            "lastAttemptedRevision": self.last_attempted_revision,
            "lastAppliedRevision": self.last_applied_revision,
            "settledKey": self.settled_key,
            "inputsKey": self.inputs_key,
            "lastTraceId": self.last_trace_id,
            "secretsSynced": self.secrets_synced,
            "lastStoreCalls": self.store_calls,
            "appliedRevisions": list(self.history),
            "secrets": [
                {"name": entry.name, "version": entry.version, "sourceHash": entry.source_hash}
                for entry in self.inventory.values()
            ],
            "conditions": [condition.as_json() for condition in self.conditions],
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a reconcile worked on, as far as it came.

    Attributes:
        generation: of the spec that was read.
        handled_at: the value of the reconcile annotation, if the object has one.
        revision: the source's revision, once it was resolved.
        settled_key: see `Status`, once it was known.
        inputs_key: likewise.
        store_calls: see `Status`.
        expiring: what is told of SOPS keys that expire, empty if none does; None if the keys were not looked at.
        trace_id: of the trace that tells of it, if one is recorded.
        untraced: what keeps its traces from going where the spec says.
    """

    generation: int
    handled_at: str | None = None
    revision: str | None = None
    settled_key: str | None = None
    inputs_key: str | None = None
    store_calls: int = 0
    expiring: str | None = None
    trace_id: str | None = None
    untraced: ControllerError | None = None


def parse_status(raw: Mapping[str, Any]) -> Status:
    """Read a stored status; whatever is malformed counts as absent, so that it is worked out anew."""

    def text(name: str) -> str | None:
        value = raw.get(name)
        return value if isinstance(value, str) else None

    def number(name: str) -> int | None:
        value = raw.get(name)
        return value if isinstance(value, int) else None

    return Status(
        observed_generation=number("observedGeneration"),
        last_reconcile_time=text("lastReconcileTime"),
        last_handled_reconcile_at=text("lastHandledReconcileAt"),
        last_attempted_revision=text("lastAttemptedRevision"),
        last_applied_revision=text("lastAppliedRevision"),
        settled_key=text("settledKey"),
        inputs_key=text("inputsKey"),
        last_trace_id=text("lastTraceId"),
        secrets_synced=number("secretsSynced") or 0,
        store_calls=number("lastStoreCalls") or 0,
        history=_parse_history(raw.get("appliedRevisions")),
        inventory=_parse_inventory(raw.get("secrets")),
        conditions=_parse_conditions(raw.get("conditions")),
    )


def summarize(previous: Status, attempt: Attempt, outcome: Report | ControllerError | None, *, now: datetime) -> Status:
    """Derive the status to write from what was there and what came of the reconcile.

    Args:
        previous: the status as it was read.
        attempt: what the reconcile worked on.
        outcome: a report; the error that stopped it before anything was written; or None where the store still held
            what was recorded.
        now: the time to record, with a time zone.
    """
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    base = replace(
        previous,
        observed_generation=attempt.generation,
        last_reconcile_time=stamp,
        last_handled_reconcile_at=attempt.handled_at or previous.last_handled_reconcile_at,
        last_attempted_revision=attempt.revision or previous.last_attempted_revision,
        store_calls=attempt.store_calls,
        last_trace_id=attempt.trace_id,
    )
    if isinstance(outcome, ControllerError):
        return replace(base, conditions=_conditions(previous, attempt, outcome.message, outcome, stamp))
    if outcome is None:
        ready = previous.condition(READY)
        told = ready is not None and ready.status == "True"
        message = ready.message if ready is not None and told else f"Synced {previous.secrets_synced} secrets"
        return replace(
            base,
            # A commit that touched nothing of the object was not applied, and yet the store equals it.
            last_applied_revision=attempt.revision or previous.last_applied_revision,
            history=remembered(previous.history, attempt.revision),
            settled_key=attempt.settled_key or previous.settled_key,
            inputs_key=attempt.inputs_key or previous.inputs_key,
            conditions=_conditions(previous, attempt, message, None, stamp),
        )
    return replace(
        base,
        last_applied_revision=attempt.revision if outcome.complete else previous.last_applied_revision,
        history=remembered(previous.history, attempt.revision if outcome.complete else None),
        settled_key=attempt.settled_key if outcome.complete else None,
        inputs_key=attempt.inputs_key if outcome.complete else None,
        secrets_synced=outcome.synced,
        inventory=outcome.inventory,
        conditions=_conditions(previous, attempt, report_message(outcome), report_error(outcome), stamp),
    )


def is_told(status: Status, stored: Mapping[str, Any], *, now: datetime) -> bool:
    """Tell whether an object's status need not be written: it says the same, and is not too old.

    Args:
        status: as it should be.
        stored: as the API server has it.
        now: the time of day, with a time zone.
    """
    said = {name: value for name, value in stored.items() if name not in OF_LAST_RECONCILE}
    wanted = {n: v for n, v in status.as_json().items() if n not in OF_LAST_RECONCILE and v is not None}
    if said != wanted:
        return False
    try:
        return now - datetime.fromisoformat(stored["lastReconcileTime"]) < TOLD_AFTER
    except (KeyError, TypeError, ValueError):
        return False


def report_error(report: Report) -> ControllerError | None:
    """Return what keeps a reported object from being ready: a failed write, a conflict, a held prune; or None."""
    if (failure := report.worst_failure) is not None:
        return failure
    if report.conflicts:
        return PermanentError(Reason.CONFLICT, report.conflicts[0].message)
    if report.held:
        return PermanentError(Reason.PRUNE_BLOCKED, "too many secrets left Git at once")
    return None


def report_message(report: Report) -> str:
    """Return the Ready condition's message: how many secrets are in sync, and what keeps the others."""
    count = str(report.synced) if report.synced == report.wanted else f"{report.synced} of {report.wanted}"
    parts = [f"Synced {count} secrets"]
    if report.failures:
        parts.append(f"{len(report.failures) + report.left} not written: {report.failures[0].error.message}")
    if report.conflicts:
        parts.append(f"{len(report.conflicts)} in conflict: {report.conflicts[0].message}")
    if report.held:
        parts.append(
            f"{len(report.held)} left Git and were kept, since that is more than half; to delete them, annotate the "
            "object with secret-management.microscaler.io/confirm-prune=<its lastAttemptedRevision>"
        )
    if report.orphans:
        parts.append(f"{len(report.orphans)} left Git and stay in the store (spec.prune is false)")
    return "; ".join(parts)


def _conditions(
    previous: Status, attempt: Attempt, message: str, error: ControllerError | None, stamp: str
) -> tuple[Condition, ...]:
    reason = Reason.RECONCILIATION_SUCCEEDED if error is None else error.reason
    wanted = [(READY, "True" if error is None else "False")]
    if error is not None:
        retried = isinstance(error, RetryableError) or error.reason is Reason.INTERNAL_ERROR
        wanted.append((RECONCILING if retried else STALLED, "True"))
    told = [_condition(previous, attempt, kind, status, reason, message, stamp) for kind, status in wanted]
    if attempt.expiring:
        warning = Reason.KEY_EXPIRES_SOON, attempt.expiring
        told.append(_condition(previous, attempt, KEY_EXPIRING, "True", *warning, stamp))
    elif attempt.expiring is None and (before := previous.condition(KEY_EXPIRING)) is not None:
        told.append(before)
    if attempt.untraced is not None:
        warning = attempt.untraced.reason, attempt.untraced.message
        told.append(_condition(previous, attempt, UNTRACED, "True", *warning, stamp))
    if (back := _went_back(previous, attempt)) is not None:
        told.append(_condition(previous, attempt, WENT_BACK, "True", Reason.REVISION_WENT_BACK, back, stamp))
    return tuple(told)


def _went_back(previous: Status, attempt: Attempt) -> str | None:
    """Return what is told of a source that went back, for as long as it stays there."""
    revision, before = attempt.revision or previous.last_attempted_revision, previous.condition(WENT_BACK)
    if went_back(previous.history, applied=previous.last_applied_revision, revision=revision):
        return f"the source went back to {revision}, which was applied before {previous.last_applied_revision}"
    stays = before is not None and revision == previous.last_attempted_revision
    return before.message if before is not None and stays else None


def _condition(
    previous: Status, attempt: Attempt, kind: str, status: str, reason: str, message: str, stamp: str
) -> Condition:
    before = previous.condition(kind)
    since = before.last_transition_time if before is not None and before.status == status else stamp
    return Condition(kind, status, str(reason), message, attempt.generation, since)


def _parse_history(raw: object) -> History:
    return tuple(item for item in raw if isinstance(item, str)) if isinstance(raw, list) else ()


def _parse_inventory(raw: object) -> Inventory:
    entries: dict[SecretName, InventoryEntry] = {}
    for item in raw if isinstance(raw, Sequence) else ():
        match item:
            case {"name": str(name), "version": str(version), "sourceHash": str(source_hash)}:
                entries[SecretName(name)] = InventoryEntry(SecretName(name), Version(version), SourceHash(source_hash))
            case _:
                continue
    return entries


def _parse_conditions(raw: object) -> tuple[Condition, ...]:
    conditions: list[Condition] = []
    for item in raw if isinstance(raw, Sequence) else ():
        match item:
            case {
                "type": str(kind),
                "status": str(status),
                "reason": str(reason),
                "message": str(message),
                "lastTransitionTime": str(since),
            }:
                generation = item.get("observedGeneration")
                number = generation if isinstance(generation, int) else 0
                conditions.append(Condition(kind, status, reason, message, number, since))
            case _:
                continue
    return tuple(conditions)
