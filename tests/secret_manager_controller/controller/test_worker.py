"""One key at a time: what is read, written once, told and scheduled; and that one object's trouble stays its own."""

import asyncio
import dataclasses
import logging
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from controller_telemetry.spans import NO_TRACER
from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.controller import worker as worker_module
from secret_manager_controller.controller.copies import ObjectCopies
from secret_manager_controller.controller.keywait import KeyWaiters
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.subject import object_path
from secret_manager_controller.controller.worker import Worker
from secret_manager_controller.errors import AccessDenied, ConfigError, PermanentError, Reason, RetryableError
from secret_manager_controller.grants import Access
from secret_manager_controller.kube import KubeError
from secret_manager_controller.model.annotations import DELETION_POLICY, FINALIZER, RECONCILE, TRACEPARENT
from secret_manager_controller.model.inventory import InventoryEntry
from secret_manager_controller.model.report import Failure, Report
from secret_manager_controller.testing.clocks import ManualClock

KEY = "team-a/idam"
PATH = object_path(KEY)
EVENTS = "/api/v1/namespaces/team-a/events"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CANARY = "canary-51b0"
SYNCED = Report(inventory={"db": InventoryEntry("db", "v1", "h")}, synced=1, wanted=1, created=("db",))
SPEC = {
    "sourceRef": {"name": "repo"},
    "provider": {"type": "aws", "aws": {}},
    "secrets": {"environment": "dev"},
    "interval": "100s",
}


class Reconciler:
    """Returns or raises what it is told to, and notes what it was asked."""

    def __init__(self):
        self.outcome = SYNCED
        self.cleanup_outcome = SYNCED
        self.untraced = None
        self.requests = []
        self.progress_keys = None

    async def reconcile(self, request, fence, progress, *, access, confirm):
        self.requests.append(request)
        progress.revision, progress.settled_key = "main@sha1:1", "settled"
        progress.keys, progress.key_namespaces = self.progress_keys, ("team-a",)
        if isinstance(self.outcome, Report):
            await confirm()
        return await self._give(self.outcome)

    async def access(self, request):
        return Access(None, self.untraced)

    async def cleanup(self, request, fence):
        self.requests.append(request)
        return await self._give(self.cleanup_outcome)

    async def _give(self, outcome):
        if callable(outcome):
            outcome = outcome()
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class RecordedTraces:
    """Keeps spans once an object asks for it."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.recording = False
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._tracer = provider.get_tracer("test")

    async def tracer(self, key, spec, *, namespace, denied):
        return (self._tracer if self.recording and denied is None else NO_TRACER), denied

    @property
    def spans(self):
        return self.exporter.get_finished_spans()


class Bench:
    def __init__(self, kube):
        self.kube = kube
        self.clock = ManualClock()
        self.queue = WorkQueue(clock=self.clock, spread=lambda: 0.0)
        self.reconciler = Reconciler()
        self.now = NOW
        self.fence = SoleMemberFence()
        self.copies = ObjectCopies()
        self.metrics = Metrics()
        self.gone = []
        self.waiting = KeyWaiters(self, self.queue.add)
        self.traces = RecordedTraces()
        self.worker = Worker(
            kube=kube, reconciler=self.reconciler, queue=self.queue, copies=self.copies,
            metrics=self.metrics, traces=self.traces, gone=self.gone.append, waiting=self.waiting, now=lambda: self.now,
        )  # fmt: skip

    def put(self, **changes):
        """Change the object, and let nothing be known of it."""
        self.change(**changes)
        self.copies.remove(KEY)

    def change(self, *, spec=None, status=None, **metadata):
        body = {
            "apiVersion": "secret-management.microscaler.io/v1",
            "kind": "SecretManagerConfig",
            "metadata": {"namespace": "team-a", "name": "idam", "uid": "u1", "generation": 3, **metadata},
            "spec": SPEC | (spec or {}),
        }
        self.kube.put(PATH, **body, **({"status": status} if status else {}))

    def show(self):
        """Let the watch show the object as it is."""
        self.copies.put(self.kube.objects[PATH])

    async def process(self):
        self.kube.requests.clear()
        await self.worker.process(KEY, self.fence)

    @property
    def status(self):
        return self.kube.objects[PATH].get("status")

    def ready(self):
        return next((c["status"], c["reason"]) for c in self.status["conditions"] if c["type"] == "Ready")

    def events(self):
        return [body for path, body in self.kube.objects.items() if path.startswith(EVENTS)]

    def due_in(self):
        """Return when the key comes next, in seconds, or None if it does not."""
        return self.queue._due.get(KEY)

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(kube):
    made = Bench(kube)
    made.put()
    return made


async def test_a_reconcile_is_one_read_one_status_write_and_one_event(bench):
    await bench.process()
    assert bench.kube.requests == [("get", PATH), ("patch", f"{PATH}/status"), ("create", EVENTS)]
    assert bench.ready() == ("True", "ReconciliationSucceeded")
    assert (bench.status["settledKey"], bench.status["observedGeneration"]) == ("settled", 3)
    assert 90 <= bench.due_in() <= 110
    ((event),) = bench.events()
    assert (event["type"], event["message"]) == ("Normal", "created 1 (main@sha1:1)")
    assert bench.sample("secret_manager_secrets_managed") == 1


async def test_a_deprecated_login_is_told_once_whatever_comes_of_the_reconcile(bench):
    bench.put(spec={"provider": {"type": "aws", "aws": {"auth": {"authType": "AccessKeys"}}}})
    bench.reconciler.outcome = PermanentError(Reason.CREDENTIALS_UNAVAILABLE, "no keys")
    for _ in range(2):
        await bench.process()
    assert [event["reason"] for event in bench.events()] == ["CredentialsUnavailable", "Deprecated"]
    assert "use Irsa" in bench.events()[1]["message"]


async def test_a_look_at_the_store_is_new_enough_by_why_the_key_came(bench):
    """What somebody asked for is not answered with what was seen before; an interval that is over may be."""
    bench.clock.now = 50.0
    bench.queue.add(KEY)
    bench.clock.now = 60.0
    await bench.queue.get()
    await bench.process()
    assert bench.reconciler.requests[-1].since == 50.0
    bench.queue.done(KEY)
    bench.clock.now = 200.0
    await bench.queue.get()
    await bench.process()
    assert bench.reconciler.requests[-1].since == 200.0 - 0.25 * 100
    bench.queue.done(KEY)
    bench.put(spec={"interval": "24h"}, generation=4)
    bench.clock.now = 400.0
    await bench.queue.get()
    await bench.process()
    assert bench.reconciler.requests[-1].since == 400.0 - 300.0


async def test_what_status_recorded_comes_back_to_the_next_reconcile(bench):
    await bench.process()
    bench.reconciler.outcome = None
    await bench.process()
    assert bench.reconciler.requests[1] == dataclasses.replace(
        bench.reconciler.requests[0],
        inventory=SYNCED.inventory,
        settled_key="settled",
        history=("main@sha1:1",),
        applied="main@sha1:1",
    )
    assert bench.kube.done("create") == []  # Nothing happened, so nothing is told.
    assert bench.sample("secret_manager_reconciliations_total") == 2
    assert bench.sample("secret_manager_secrets_synced_total") == 2


async def test_a_request_by_annotation_is_acknowledged(bench):
    bench.put(annotations={RECONCILE: "1700000000"})
    await bench.process()
    assert bench.status["lastHandledReconcileAt"] == "1700000000"


@pytest.mark.parametrize(
    ("error", "condition", "due"),
    [
        pytest.param(RetryableError(Reason.SOURCE_NOT_READY, "m"), "Reconciling", 1.0, id="retryable"),
        pytest.param(
            RetryableError(Reason.RATE_LIMITED, "m", retry_after=60), "Reconciling", 60.0, id="the store's wish"
        ),
        pytest.param(PermanentError(Reason.DECRYPTION_FAILED, "m"), "Stalled", "interval", id="permanent"),
        pytest.param(ConfigError("m", reason=Reason.NOT_IMPLEMENTED), "Stalled", None, id="config"),
    ],
)
async def test_an_error_is_told_once_and_tried_again_when_it_may_help(bench, error, condition, due):
    bench.reconciler.outcome = error
    for _ in range(2):
        await bench.process()
    assert bench.ready() == ("False", str(error.reason))
    assert condition in [c["type"] for c in bench.status["conditions"]]
    assert [event["type"] for event in bench.events()] == ["Warning"]
    assert bench.sample("secret_manager_reconciliation_errors_total", reason=str(error.reason)) == 2
    if due == "interval":
        assert 90 <= bench.due_in() <= 110
    else:
        assert bench.due_in() == (2.0 if due == 1.0 else due)  # The second failure waits twice as long.


async def test_partial_success_is_recorded_and_retried(bench):
    denied = RetryableError(Reason.STORE_UNAVAILABLE, "down")
    bench.reconciler.outcome = dataclasses.replace(SYNCED, wanted=2, failures=(Failure("x", denied),))
    await bench.process()
    assert bench.ready() == ("False", "StoreUnavailable")
    assert (bench.status["secretsSynced"], len(bench.status["secrets"])) == (1, 1)
    assert bench.due_in() == 1.0


async def test_a_spec_that_cannot_be_parsed_is_told_and_waits_for_a_new_one(bench):
    bench.put(spec={"interval": "soon"})
    await bench.process()
    assert bench.ready() == ("False", "InvalidSpec")
    assert (bench.due_in(), bench.reconciler.requests) == (None, [])


async def test_a_suspended_object_is_left_alone(bench):
    bench.put(spec={"suspend": True})
    await bench.process()
    assert (bench.kube.requests, bench.reconciler.requests, bench.due_in()) == ([("get", PATH)], [], None)


async def test_an_internal_error_is_told_by_its_type_and_place_alone(bench, caplog):
    bench.reconciler.outcome = ValueError(CANARY)
    with caplog.at_level(logging.DEBUG):
        await bench.process()
    assert bench.ready() == ("False", "InternalError")
    assert bench.due_in() == 1.0
    (record,) = (record for record in caplog.records if record.message == "Internal error")
    assert record.error_type == "ValueError"
    assert "test_worker.py" in record.where
    everything = str(bench.kube.objects) + "".join(str(record.__dict__) for record in caplog.records)
    assert CANARY not in everything


async def test_a_reconcile_that_does_not_end_is_stopped(bench, monkeypatch):
    monkeypatch.setattr(worker_module, "RECONCILE_TIMEOUT", 0.01)
    bench.reconciler.outcome = lambda: asyncio.sleep(60)
    await bench.process()
    assert bench.ready() == ("False", "StoreUnavailable")


async def test_an_object_that_is_gone_is_forgotten(bench):
    del bench.kube.objects[PATH]
    await bench.process()
    assert (bench.gone, bench.reconciler.requests) == ([KEY], [])


async def test_a_change_of_the_spec_meanwhile_does_not_lose_the_record(bench):
    """The store was written, so the status is written too; the new generation is queued by the watch."""

    def meanwhile():
        bench.put(generation=4)
        return SYNCED

    bench.reconciler.outcome = meanwhile
    await bench.process()
    assert bench.status["observedGeneration"] == 3
    assert bench.status["secretsSynced"] == 1


async def test_a_status_that_someone_else_wrote_meanwhile_is_not_overwritten(bench):
    theirs = {"secretsSynced": 7, "conditions": []}

    def meanwhile():
        bench.put(status=theirs)
        return SYNCED

    bench.reconciler.outcome = meanwhile
    await bench.process()
    assert bench.status == theirs
    assert bench.due_in() == 1.0


async def test_an_object_that_was_made_anew_meanwhile_keeps_its_own_status(bench):
    def meanwhile():
        bench.put(uid="u2")
        return SYNCED

    bench.reconciler.outcome = meanwhile
    await bench.process()
    assert bench.status is None


@pytest.mark.parametrize("when", ["before", "during"])
async def test_lost_ownership_writes_nothing_and_leaves_a_retry_to_whoever_owns_the_key_then(bench, when):
    def lose():
        bench.fence.revoke()
        return SYNCED

    if when == "before":
        bench.fence.revoke()
    else:
        bench.reconciler.outcome = lose
    await bench.process()
    assert bench.status is None
    assert bench.due_in() == 1.0
    assert bench.kube.done("patch") == []


async def test_ownership_that_the_store_finds_lost_writes_no_status(bench):
    bench.reconciler.outcome = OwnershipLost("lost")
    await bench.process()
    assert bench.kube.done("patch") == []


async def test_an_api_server_that_refuses_is_tried_again(bench):
    def refuse(verb, path):
        raise KubeError(503, "unavailable")

    bench.kube.refuse = refuse
    await bench.process()
    assert (bench.due_in(), bench.reconciler.requests) == (1.0, [])


async def test_an_event_that_is_refused_changes_nothing_else(bench):
    def refuse(verb, path):
        if path == EVENTS:
            raise KubeError(403, "forbidden")

    bench.kube.refuse = refuse
    await bench.process()
    assert bench.ready() == ("True", "ReconciliationSucceeded")
    assert 90 <= bench.due_in() <= 110


async def test_the_finalizer_is_set_before_the_store_is_written_and_taken_off_with_the_policy(bench):
    bench.put(spec={"deletionPolicy": "Delete"})
    await bench.process()
    assert bench.kube.done("patch") == [PATH, f"{PATH}/status"]
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == [FINALIZER]
    bench.put(finalizers=["another/finalizer", FINALIZER])
    await bench.process()
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == ["another/finalizer"]


def deleted(bench, **changes):
    spec = {"deletionPolicy": "Delete"} | changes.pop("spec", {})
    bench.put(spec=spec, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[FINALIZER], **changes)


async def test_a_deleted_object_is_cleaned_up_and_let_go(bench):
    deleted(bench)
    await bench.process()
    assert len(bench.reconciler.requests) == 1
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"annotations": {DELETION_POLICY: "Orphan"}}, id="annotation"),
        pytest.param({"spec": {"deletionPolicy": "Orphan"}}, id="policy"),
        pytest.param({"spec": {"suspend": True}}, id="suspended"),
    ],
)
async def test_a_deleted_object_may_leave_the_store_alone(bench, changes):
    deleted(bench, **changes)
    await bench.process()
    assert bench.reconciler.requests == []
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == []


async def test_a_cleanup_that_fails_holds_the_object_says_how_to_let_it_go_and_tries_again(bench):
    deleted(bench, status={"secrets": [{"name": "db", "version": "v1", "sourceHash": "h"}]})
    bench.reconciler.cleanup_outcome = PermanentError(Reason.STORE_ACCESS_DENIED, "no DeleteSecret")
    await bench.process()
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == [FINALIZER]
    message = next(c["message"] for c in bench.status["conditions"] if c["type"] == "Ready")
    assert "no DeleteSecret" in message
    assert f"{DELETION_POLICY}=Orphan" in message
    assert bench.due_in() == 1.0


async def test_an_object_that_owns_nothing_and_cannot_be_cleaned_up_is_let_go(bench):
    deleted(bench)
    bench.reconciler.cleanup_outcome = PermanentError(Reason.CREDENTIALS_UNAVAILABLE, "no login")
    await bench.process()
    assert bench.kube.objects[PATH]["metadata"]["finalizers"] == []


async def test_a_deleted_object_without_our_finalizer_is_not_ours_to_touch(bench):
    bench.put(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["another/finalizer"])
    await bench.process()
    assert bench.kube.requests == [("get", PATH)]


class Expiring:
    """A key ring of which one key expires."""

    id = "ring"

    def expiring(self, now):
        assert now == NOW.timestamp()
        return ("PGP key A expires on 2026-02-01",)


async def test_keys_that_expire_are_told_once_and_stay_in_the_status(bench):
    bench.put()
    bench.reconciler.progress_keys = Expiring()
    await bench.process()
    await bench.process()
    (condition,) = [each for each in bench.status["conditions"] if each["type"] == "KeyExpiring"]
    assert condition["message"] == (
        "PGP key A expires on 2026-02-01; extend it or make another, and encrypt the files for that (`sops updatekeys`)"
    )
    told = [event for event in bench.events() if event["reason"] == "KeyExpiresSoon"]
    assert [event["type"] for event in told] == ["Warning"]


async def test_who_fails_for_want_of_a_key_waits_for_others_until_it_is_gone(bench):
    bench.put()
    bench.reconciler.progress_keys = Expiring()
    bench.reconciler.outcome = PermanentError(Reason.DECRYPTION_FAILED, "failed")
    await bench.process()
    assert len(bench.waiting) == 1
    del bench.kube.objects[PATH]
    bench.copies.remove(KEY)
    await bench.process()
    assert len(bench.waiting) == 0


async def test_without_a_trace_status_names_none(bench):
    await bench.process()
    assert bench.status.get("lastTraceId") is None


async def test_a_reconcile_is_one_span_whose_trace_status_names(bench):
    bench.traces.recording = True
    await bench.process()
    (span,) = bench.traces.spans
    assert (span.name, span.status.is_ok) == ("reconcile", True)
    assert dict(span.attributes) == {
        "k8s.namespace.name": "team-a",
        "secret_manager.object": "team-a/idam",
        "secret_manager.generation": 3,
        "secret_manager.revision": "main@sha1:1",
    }
    assert bench.status["lastTraceId"] == f"{span.context.trace_id:032x}"


async def test_a_failed_reconcile_is_told_in_its_span_by_the_reason_alone(bench):
    bench.traces.recording = True
    bench.reconciler.outcome = PermanentError(Reason.DECRYPTION_FAILED, "message-canary")
    await bench.process()
    (span,) = bench.traces.spans
    assert (span.status.is_ok, span.attributes["secret_manager.reason"]) == (False, "DecryptionFailed")
    assert "message-canary" not in span.to_json()


async def test_a_request_continues_its_trace_once(bench):
    bench.traces.recording = True
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    bench.put(annotations={RECONCILE: "1700000000", TRACEPARENT: f"00-{trace}-{parent}-01"})
    await bench.process()
    assert bench.status["lastTraceId"] == trace
    await bench.process()  # The interval's reconcile is none of that request.
    asked, resync = bench.traces.spans
    assert (f"{asked.parent.span_id:016x}", resync.parent) == (parent, None)


async def test_a_denied_host_of_traces_is_told_and_stops_nothing_else(bench, caplog):
    bench.traces.recording = True
    bench.reconciler.untraced = AccessDenied("no traces: spec.otel.endpoint names host evil")
    for _ in range(2):
        await bench.process()
    assert (bench.ready(), bench.traces.spans) == (("True", "ReconciliationSucceeded"), ())
    (condition,) = [each for each in bench.status["conditions"] if each["type"] == "Untraced"]
    assert (condition["status"], condition["reason"]) == ("True", "AccessDenied")
    assert condition["message"].endswith("names host evil")
    assert [event["message"] for event in bench.events() if event["reason"] == "AccessDenied"] == [condition["message"]]
    assert [record.error for record in caplog.records if record.message == "No traces"] == [condition["message"]]
    bench.reconciler.untraced = None
    await bench.process()
    assert not [each for each in bench.status["conditions"] if each["type"] == "Untraced"]
    assert len(bench.traces.spans) == 1


async def test_an_object_that_is_denied_something_else_is_traced(bench):
    bench.traces.recording = True
    bench.reconciler.outcome = AccessDenied("spec.provider.aws names region x")
    await bench.process()
    (span,) = bench.traces.spans
    assert (bench.ready()[1], span.attributes["secret_manager.reason"]) == ("AccessDenied", "AccessDenied")


async def test_a_retry_of_a_request_is_linked_to_what_asked_for_it(bench):
    bench.traces.recording = True
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    bench.put(annotations={RECONCILE: "1700000000", TRACEPARENT: f"00-{trace}-{parent}-01"})
    bench.reconciler.outcome = RetryableError(Reason.STORE_UNAVAILABLE, "later")
    await bench.process()
    bench.reconciler.outcome = SYNCED
    for _ in range(2):
        await bench.process()
    asked, again, resync = bench.traces.spans
    links = [[f"{link.context.span_id:016x}" for link in span.links] for span in (asked, again, resync)]
    assert links == [[], [parent], []]
    assert (f"{asked.parent.span_id:016x}", again.parent) == (parent, None)


async def test_the_log_tells_each_change_of_state_with_its_trace(bench, caplog):
    caplog.set_level("INFO")
    bench.traces.recording = True
    failure = RetryableError(Reason.STORE_UNAVAILABLE, "later")
    for outcome in (SYNCED, failure, None, None):
        bench.reconciler.outcome = outcome
        await bench.process()
    told = [record for record in caplog.records if getattr(record, "object", None) == KEY]
    assert [record.message for record in told] == ["Store updated", "Not ready", "Ready"]
    spans = bench.traces.spans
    assert [(r.trace_id, r.span_id) for r in told] == [
        (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") for span in spans[:3]
    ]


class TestCopies:
    """By a copy alone nothing is done; a turn that finds nothing to do asks the API server for nothing."""

    @pytest.fixture
    async def bench(self, bench):
        """Everything is as Git has it, and the watch has shown that."""
        await bench.process()
        bench.reconciler.outcome = None
        bench.kube.requests.clear()
        return bench

    async def test_a_pass_without_a_change_asks_and_writes_nothing(self, bench):
        for _ in range(3):
            await bench.process()
            assert bench.kube.requests == []
        assert len(bench.reconciler.requests) == 4
        assert 90 <= bench.due_in() <= 110
        assert bench.sample("secret_manager_reconciliations_total") == 4

    async def test_an_hour_later_it_is_told(self, bench):
        bench.now += timedelta(minutes=59)
        await bench.process()
        assert bench.kube.requests == []
        bench.now += timedelta(minutes=2)
        await bench.process()
        assert bench.kube.requests == [("get", PATH), ("patch", f"{PATH}/status")]
        assert bench.status["lastReconcileTime"] == "2026-01-02T04:05:05Z"

    async def test_what_is_to_be_done_is_done_with_one_read(self, bench):
        bench.reconciler.outcome = SYNCED
        await bench.process()
        assert bench.kube.requests == [("get", PATH), ("create", EVENTS)]  # The status says so already.
        assert len(bench.reconciler.requests) == 2

    async def test_what_a_stale_copy_asks_for_is_not_done(self, bench):
        """The object has changed since: it is reconciled as it is."""
        bench.change(generation=4, spec={"prune": True}, status=bench.status)
        bench.reconciler.outcome = SYNCED
        await bench.process()
        assert [(request.generation, request.spec.prune) for request in bench.reconciler.requests[1:]] == [
            (3, False),
            (4, True),
        ]
        assert bench.kube.done("get") == [PATH]
        assert bench.status["observedGeneration"] == 4
        assert bench.sample("secret_manager_reconciliations_total") == 2

    async def test_an_error_by_a_stale_copy_is_told_to_nobody(self, bench):
        bench.change(generation=4, status=bench.status)
        bench.reconciler.outcome = lambda: (
            PermanentError(Reason.DECRYPTION_FAILED, "m") if len(bench.reconciler.requests) == 2 else None
        )
        await bench.process()
        assert bench.ready() == ("True", "ReconciliationSucceeded")
        assert bench.sample("secret_manager_reconciliation_errors_total", reason="DecryptionFailed") is None

    async def test_an_error_that_is_told_already_is_not_written_again(self, bench):
        bench.reconciler.outcome = PermanentError(Reason.DECRYPTION_FAILED, "m")
        await bench.process()
        await bench.process()
        assert bench.kube.requests == []
        assert bench.ready() == ("False", "DecryptionFailed")

    @pytest.mark.parametrize("outcome", [SYNCED, PermanentError(Reason.DECRYPTION_FAILED, "m")], ids=["done", "error"])
    async def test_an_object_that_is_gone_is_left_alone_by_its_copy(self, bench, outcome):
        bench.reconciler.outcome = outcome
        del bench.kube.objects[PATH]
        await bench.process()
        assert (bench.gone, bench.kube.requests) == ([KEY], [("get", PATH)])

    async def test_a_finalizer_is_not_set_by_a_copy(self, bench):
        bench.change(generation=4, status=bench.status, spec={"deletionPolicy": "Delete"})
        bench.show()
        bench.change(generation=5, status=bench.status)
        await bench.process()
        assert bench.kube.done("patch") == [f"{PATH}/status"]
        assert "finalizers" not in bench.kube.objects[PATH]["metadata"]

    async def test_a_deleted_object_is_read(self, bench):
        deleted(bench, status=bench.status)
        bench.show()
        await bench.process()
        assert bench.kube.requests == [("get", PATH), ("patch", PATH)]

    async def test_an_api_server_that_does_not_confirm_ends_the_turn(self, bench):
        def refuse(verb, path):
            raise KubeError(503, "unavailable")

        bench.kube.refuse, bench.reconciler.outcome = refuse, SYNCED
        await bench.process()
        assert (bench.due_in(), bench.kube.requests) == (1.0, [("get", PATH)])


APPLIED = {"lastAppliedRevision": "main@sha1:1", "lastAttemptedRevision": "main@sha1:1", "observedGeneration": 3}


@pytest.mark.parametrize(
    ("status", "repaired"),
    [
        pytest.param(APPLIED, 1, id="nothing changed but the store"),
        pytest.param(APPLIED | {"lastAppliedRevision": "main@sha1:0"}, 0, id="a retry"),
        pytest.param(dict.fromkeys(APPLIED, "main@sha1:0") | {"observedGeneration": 3}, 0, id="a commit"),
        pytest.param(APPLIED | {"observedGeneration": 2}, 0, id="a new spec"),
        pytest.param({}, 0, id="the first time"),
    ],
)
async def test_what_is_written_without_a_change_of_ours_is_drift(bench, status, repaired):
    bench.put(status=status)
    await bench.process()
    assert bench.sample("secret_manager_drift_repaired_total") == repaired


async def test_the_reason_of_each_object_is_kept_until_it_is_suspended(bench):
    bench.reconciler.outcome = PermanentError(Reason.DECRYPTION_FAILED, "no")
    await bench.process()
    assert bench.metrics.reasons == {KEY: "DecryptionFailed"}
    bench.put(spec={"suspend": True})
    await bench.process()
    assert bench.metrics.reasons == {}
