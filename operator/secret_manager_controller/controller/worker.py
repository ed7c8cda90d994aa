"""One key at a time: reconcile the object, write its status once, say what changed, schedule the next time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from opentelemetry.trace import StatusCode

from controller_telemetry.spans import log_fields, trace_id
from lease_sharding.fence import Fence, OwnershipLost
from secret_manager_controller.controller.copies import ObjectCopies
from secret_manager_controller.controller.events import Told, event_of, notices_of, warnings_of
from secret_manager_controller.controller.fenced import FencedKube
from secret_manager_controller.controller.keywait import KeyWaiters
from secret_manager_controller.controller.metrics import Metrics, exemplar_of
from secret_manager_controller.controller.outcome import Outcome, Trace, log_outcome, log_unexpected
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.subject import (
    Body,
    Outdated,
    Subject,
    annotations_of,
    is_deleting,
    object_path,
)
from secret_manager_controller.controller.traces import Traces
from secret_manager_controller.decrypt import KeyRing
from secret_manager_controller.errors import ConfigError, ControllerError, Reason, RetryableError
from secret_manager_controller.kube import KubeClient, KubeError
from secret_manager_controller.model.annotations import (
    CONFIRM_PRUNE,
    CONFIRM_ROLLBACK,
    DELETION_POLICY,
    FINALIZER,
    RECONCILE,
    TRACEPARENT,
)
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.spec import DeletionPolicy, Spec, parse_spec
from secret_manager_controller.model.status import (
    RECONCILING,
    Attempt,
    Status,
    parse_status,
    summarize,
)
from secret_manager_controller.providers import occasion
from secret_manager_controller.reconcile import Reconciler
from secret_manager_controller.request import Progress, Request
from secret_manager_controller.tracing import Attribute, Attributes, reconcile_span, told

logger = logging.getLogger(__name__)

RECONCILE_TIMEOUT = 300.0
"""Seconds one reconcile may take: 2,000 creates at AWS's 50 a second take 40."""
INTERVAL_JITTER = 0.1
"""The interval is shortened or lengthened by up to this share, so that objects made together part."""
LOOK_SLACK = 0.25
LONGEST_LOOK_SLACK = 300.0
"""How old a look at the store may be when an object comes round and nobody asked for it: a share of the interval, but
not more seconds than this. Drift is found so much later, and hundreds of objects on one store share four or five looks
an interval."""
ENDS_OF_TURN = (OwnershipLost, Outdated, KubeError)
"""What ends a turn without a word in the object's status."""


class Worker:
    """Works on one key from the queue after the other; several may share a queue."""

    def __init__(
        self,
        *,
        kube: KubeClient,
        reconciler: Reconciler,
        queue: WorkQueue,
        copies: ObjectCopies,
        metrics: Metrics,
        traces: Traces,
        gone: Callable[[str], None],
        waiting: KeyWaiters,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Make a worker.

        Args:
            kube: the API server.
            reconciler: what drives a store towards Git.
            queue: where keys come from and go back to.
            copies: the objects as they were seen last; one that is not there is read.
            metrics: counts reconciles and secrets.
            traces: tells where an object's traces go.
            gone: told the key of an object that does not exist any more.
            waiting: told which objects need other SOPS keys.
            now: the time of day for status and Events.
        """
        self._kube = kube
        self._reconciler = reconciler
        self._queue = queue
        self._copies = copies
        self._metrics = metrics
        self._traces = traces
        self._gone = gone
        self._waiting = waiting
        self._now = now

    async def process(self, key: str, fence: Fence) -> None:
        """Bring one object up to date and schedule its next time; no failure of one object leaves this method.

        Args:
            key: the object's request key.
            fence: stands before every effect.
        """
        api = FencedKube(self._kube, fence)
        try:
            fence.check(0)
            await self._turn(api, key)
        except OwnershipLost as error:
            # Whoever owns the shard now has queued the key. If that is still this replica, whose session was only
            # renewed too late for this one effect, nobody else takes the key up; else it is dropped when it is due.
            delay = self._queue.retry(key)
            logger.info("Ownership lost", extra={"object": key, "error": str(error), "retry_s": round(delay, 1)})
        except KubeError as error:
            delay = self._queue.retry(key)
            logger.warning(
                "API server refused",
                extra={"object": key, "status": error.status, "error": error.message, "retry_s": round(delay, 1)},
            )
        except Exception as error:  # noqa: BLE001 - the one net under all objects: it keeps the others going.
            delay = self._queue.retry(key)
            log_unexpected(error, key=key, retry=delay)

    async def _turn(self, api: FencedKube, key: str) -> None:
        """Work on a copy of the object as long as there is nothing to do by it, else on the object."""
        copy = self._copies.get(key)
        if copy is None or is_deleting(copy):
            body = await api.get(object_path(key))
        else:
            try:
                return await self._reconcile(Subject(api, self._copies, copy, sure=False))
            except Outdated as outdated:
                body = outdated.current
        if body is None:
            self._gone(key)
            self._waiting.forget(key)
            return None
        subject = Subject(api, self._copies, body, sure=True)
        return await (self._finalize(subject) if is_deleting(body) else self._reconcile(subject))

    async def _reconcile(self, subject: Subject) -> None:
        key, body = subject.key, subject.body
        previous = parse_status(body.get("status") or {})
        progress = Progress()
        started = time.monotonic()
        interval: float | None = None
        warnings: tuple[Told, ...] = ()
        store_calls = 0
        try:
            spec = parse_spec(body)
            if spec.suspend:
                self._queue.succeeded(key)
                self._metrics.reasons.pop(key, None)
                return
            warnings = warnings_of(spec, previous, generation=body["metadata"]["generation"])
            interval = spec.interval_seconds
            await subject.ensure_finalizer(wanted=spec.deletion_policy is DeletionPolicy.DELETE)
            since = self._queue.new_enough(key, slack=min(LOOK_SLACK * interval, LONGEST_LOOK_SLACK))
            request = replace(request_of(subject.body, spec, previous), since=since)
            with occasion.of_reconcile() as present:
                outcome, trace = await self._traced(request, subject, progress)
            store_calls = present.requests
        except ConfigError as error:
            outcome, trace = Outcome(error=error), Trace()
        attempt = Attempt(
            generation=subject.body["metadata"]["generation"],
            handled_at=subject.annotations.get(RECONCILE),
            revision=progress.revision,
            settled_key=progress.settled_key,
            inputs_key=progress.inputs_key,
            store_calls=store_calls,
            expiring=expiry_told(progress.keys, now=self._now()),
            trace_id=trace.id,
            untraced=trace.untraced,
        )
        status = summarize(previous, attempt, outcome.error or outcome.report, now=self._now())
        await subject.write_status(status, now=self._now())
        self._count(key, outcome, (previous, status), trace, time.monotonic() - started)
        log_outcome(key, outcome, (previous, status), trace, time.monotonic() - started)
        for event in (event_of(previous, status, outcome.report), *warnings, *notices_of(previous, status)):
            await subject.tell(event, now=self._now())
        self._waiting.note(key, outcome.problem, progress)
        self._schedule(key, outcome.problem, interval)

    async def _traced(self, request: Request, subject: Subject, progress: Progress) -> tuple[Outcome, Trace]:
        """Reconcile an object in a trace of its own or the trigger's; return what is to be told of the trace."""
        spec, trigger = request.spec, subject.annotations.get(TRACEPARENT)
        access = await self._reconciler.access(request)
        tracer, untraced = await self._traces.tracer(
            request.key, spec, namespace=request.namespace, denied=access.untraced
        )
        attributes: Attributes = {
            Attribute.NAMESPACE: request.namespace,
            Attribute.OBJECT: request.key,
            Attribute.GENERATION: request.generation,
        }
        with reconcile_span(
            tracer,
            "reconcile",
            attributes,
            parent=trigger if request.look else None,
            link=trigger if request.retry and not request.look else None,
            record_names=spec.otel is not None and spec.otel.record_names,
        ) as span:
            work = self._reconciler.reconcile(
                request, subject.api.fence, progress, access=access, confirm=subject.confirm
            )
            outcome = await self._attempt(work, key=request.key)
            if progress.revision is not None:
                told(span, {Attribute.REVISION: progress.revision})
            if (problem := outcome.problem) is not None:
                span.set_status(StatusCode.ERROR)
                told(span, {Attribute.REASON: str(problem.reason)})
            return outcome, Trace(trace_id(), log_fields(), untraced)

    async def _attempt(self, work: Awaitable[Report | None], *, key: str) -> Outcome:
        limit = asyncio.timeout(RECONCILE_TIMEOUT)
        try:
            async with limit:
                return Outcome(report=await work)
        except ENDS_OF_TURN:
            raise
        except ControllerError as error:
            return Outcome(error=error)
        except Exception as error:  # noqa: BLE001 - told as InternalError by its type; the text may hold a value.
            if limit.expired():
                message = f"the reconcile did not end within {RECONCILE_TIMEOUT:g} s and was stopped"
                return Outcome(error=RetryableError(Reason.STORE_UNAVAILABLE, message))
            log_unexpected(error, key=key)
            message = f"internal error ({type(error).__name__}); the controller's log says where"
            return Outcome(error=RetryableError(Reason.INTERNAL_ERROR, message))

    async def _finalize(self, subject: Subject) -> None:
        key, body = subject.key, subject.body
        if FINALIZER not in (body["metadata"].get("finalizers") or []):
            self._queue.discard(key)
            return
        previous = parse_status(body.get("status") or {})
        problem = await self._clean_up(subject, previous)
        if problem is None or _nothing_to_lose(problem, previous):
            await subject.ensure_finalizer(wanted=False)
            self._queue.succeeded(key)
            return
        hint = f"; to leave the store as it is, annotate the object with {DELETION_POLICY}=Orphan"
        told = RetryableError(problem.reason, f"cannot delete the secrets: {problem.message}{hint}")
        logger.warning("Not deleted", extra={"object": key, "reason": str(told.reason), "error": told.message})
        attempt = Attempt(generation=body["metadata"]["generation"])
        status = summarize(previous, attempt, told, now=self._now())
        await subject.write_status(status, now=self._now())
        await subject.tell(event_of(previous, status, None), now=self._now())
        self._queue.retry(key, at_least=problem.retry_after if isinstance(problem, RetryableError) else None)

    async def _clean_up(self, subject: Subject, previous: Status) -> ControllerError | None:
        """Delete what the object owns in its store, if that is wanted; return what kept it from that."""
        key, body = subject.key, subject.body
        if subject.annotations.get(DELETION_POLICY) == DeletionPolicy.ORPHAN:
            return None
        try:
            spec = parse_spec(body)
        except ConfigError as error:
            return error
        if spec.suspend or spec.deletion_policy is not DeletionPolicy.DELETE:
            return None
        request = request_of(body, spec, previous)
        outcome = await self._attempt(self._reconciler.cleanup(request, subject.api.fence), key=key)
        if outcome.report is not None and outcome.problem is None:
            logger.info("Store cleaned up", extra={"object": key, "pruned": len(outcome.report.pruned)})
        return outcome.problem

    def _count(self, key: str, outcome: Outcome, statuses: tuple[Status, Status], trace: Trace, seconds: float) -> None:
        metrics, report, problem = self._metrics, outcome.report, outcome.problem
        previous, status = statuses
        metrics.reconciliations.inc()
        metrics.reconciliation_duration.observe(seconds, exemplar_of(trace.id))
        metrics.reasons[key] = str(Reason.RECONCILIATION_SUCCEEDED if problem is None else problem.reason)
        metrics.set_managed(key, len(status.inventory))
        if outcome.error is None:
            metrics.secrets_synced.inc(status.secrets_synced)
        if report is not None:
            metrics.secrets_updated.inc(len(report.updated))
            if is_unprovoked(previous, status):
                metrics.drift_repaired.inc(len(report.created) + len(report.updated))
        if problem is not None:
            metrics.reconciliation_errors.labels(str(problem.reason)).inc()

    def _schedule(self, key: str, problem: ControllerError | None, interval: float | None) -> None:
        if isinstance(problem, RetryableError):
            self._queue.retry(key, at_least=problem.retry_after)
            return
        self._queue.succeeded(key)
        if interval is not None and not isinstance(problem, ConfigError):
            self._queue.add_after(key, interval * (1 + random.uniform(-INTERVAL_JITTER, INTERVAL_JITTER)))  # noqa: S311 - jitter is no secret.


def request_of(body: Body, spec: Spec, previous: Status) -> Request:
    """Return what a reconcile needs of an object."""
    metadata = body["metadata"]
    return Request(
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata["generation"],
        spec=spec,
        inventory=previous.inventory,
        settled_key=previous.settled_key,
        inputs_key=previous.inputs_key,
        confirm_prune=annotations_of(body).get(CONFIRM_PRUNE),
        confirm_rollback=annotations_of(body).get(CONFIRM_ROLLBACK),
        history=previous.history,
        applied=previous.last_applied_revision,
        look=annotations_of(body).get(RECONCILE) not in {None, previous.last_handled_reconcile_at},
        retry=previous.condition(RECONCILING) is not None,
    )


def expiry_told(keys: KeyRing | None, *, now: datetime) -> str | None:
    """Return what is said of keys that expire: empty if none does, None if there are no keys to say it of."""
    if keys is None:
        return None
    expiring = keys.expiring(now.timestamp())
    advice = "; extend it or make another, and encrypt the files for that (`sops updatekeys`)" if expiring else ""
    return "; ".join(expiring) + advice


def _nothing_to_lose(problem: ControllerError, previous: Status) -> bool:
    """Tell whether an object that cannot be cleaned up may go: it owns nothing, and its problem may last for ever."""
    passing = isinstance(problem, RetryableError) and problem.reason is not Reason.CREDENTIALS_UNAVAILABLE
    return not previous.inventory and not passing


def is_unprovoked(previous: Status, status: Status) -> bool:
    """Tell whether Git and the spec are as when the store was last made equal: what is written then is drift."""
    applied = previous.last_applied_revision
    return (
        applied is not None
        and applied == previous.last_attempted_revision == status.last_attempted_revision
        and previous.observed_generation == status.observed_generation
    )
