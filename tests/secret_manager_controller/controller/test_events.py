"""Events: what is told, what is not, and that a refusal of theirs is nobody's problem."""

import logging
from datetime import UTC, datetime

import pytest

from secret_manager_controller.controller.events import EVENT_NOTE_LIMIT, event_of, publish, warnings_of
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.kube import KubeError
from secret_manager_controller.model.report import Failure, Report
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.model.status import Attempt, Status, summarize

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ATTEMPT = Attempt(generation=1, revision="main@sha1:1", settled_key="s")
EVENTS = "/api/v1/namespaces/team-a/events"
BODY = {
    "apiVersion": "secret-management.microscaler.io/v1",
    "kind": "SecretManagerConfig",
    "metadata": {"namespace": "team-a", "name": "idam", "uid": "u1", "resourceVersion": "7"},
}

QUIET = Report(inventory={}, synced=2, wanted=2)
CHANGED = Report(
    inventory={}, synced=2, wanted=2, created=("a", "b"), updated=("c",), adopted=("d",), pruned=("e", "f", "g")
)
DOWN = RetryableError(Reason.STORE_UNAVAILABLE, "the store does not answer")
BROKEN = PermanentError(Reason.DECRYPTION_FAILED, "a.env: MAC mismatch")
PARTIAL = Report(inventory={}, synced=1, wanted=2, created=("a",), failures=(Failure("b", DOWN),))


def after(previous, outcome):
    return summarize(previous, ATTEMPT, outcome, now=NOW)


NEW, GOOD, BAD = Status(), after(Status(), QUIET), after(Status(), BROKEN)


@pytest.mark.parametrize(
    ("previous", "outcome", "told"),
    [
        pytest.param(NEW, QUIET, None, id="nothing to do at first"),
        pytest.param(GOOD, QUIET, None, id="nothing to do"),
        pytest.param(GOOD, None, None, id="settled"),
        pytest.param(
            NEW, CHANGED,
            ("Normal", "ReconciliationSucceeded", "created 2, updated 1, adopted 1, pruned 3 (main@sha1:1)"), id="changes",
        ),
        pytest.param(GOOD, BROKEN, ("Warning", "DecryptionFailed", "a.env: MAC mismatch"), id="failure"),
        pytest.param(BAD, BROKEN, None, id="the same failure again"),
        pytest.param(BAD, DOWN, ("Warning", "StoreUnavailable", "the store does not answer"), id="another failure"),
        pytest.param(
            GOOD, PARTIAL,
            ("Warning", "StoreUnavailable", "Synced 1 of 2 secrets; 1 not written: the store does not answer"), id="part",
        ),
        pytest.param(BAD, QUIET, ("Normal", "ReconciliationSucceeded", "Synced 2 secrets"), id="recovery"),
        pytest.param(BAD, None, ("Normal", "ReconciliationSucceeded", "Synced 0 secrets"), id="recovery, settled"),
    ],
)  # fmt: skip
def test_changes_failures_and_recoveries_are_told_once(previous, outcome, told):
    report = outcome if isinstance(outcome, Report) else None
    assert event_of(previous, after(previous, outcome), report) == told


def test_a_status_without_a_ready_condition_tells_nothing():
    assert event_of(NEW, NEW, None) is None


async def test_an_event_names_its_object_and_its_time(kube):
    await publish(kube, BODY, ("Normal", "ReconciliationSucceeded", "created 1"), now=NOW)
    ((path, event),) = kube.objects.items()
    assert path.startswith(f"{EVENTS}/idam-")
    assert event["involvedObject"] == {
        "apiVersion": "secret-management.microscaler.io/v1",
        "kind": "SecretManagerConfig",
        "name": "idam",
        "namespace": "team-a",
        "uid": "u1",
        "resourceVersion": "7",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "ReconciliationSucceeded", "created 1")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-02T03:04:05Z"


async def test_a_long_message_is_cut_at_a_character(kube):
    await publish(kube, BODY, ("Warning", "Conflict", "ä" * 600), now=NOW)
    (event,) = kube.objects.values()
    assert event["message"] == "ä" * (EVENT_NOTE_LIMIT // 2)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("idam", "idam-"), ("x" * 253, f"{'x' * 200}-"), (f"{'x' * 199}.yz", f"{'x' * 199}-"), (f"{'x' * 198}-.z", f"{'x' * 198}-")],
    ids=["short", "long", "cut at a dot", "cut at a dash"],
)  # fmt: skip
async def test_the_events_name_is_one_whatever_the_objects_is(kube, name, prefix):
    await publish(kube, BODY | {"metadata": BODY["metadata"] | {"name": name}}, ("Normal", "R", "m"), now=NOW)
    (event,) = kube.objects.values()
    assert event["metadata"]["generateName"] == prefix


async def test_a_refused_event_is_logged_and_nothing_else(kube, caplog):
    def refuse(verb, path):
        raise KubeError(403, "events is forbidden")

    kube.refuse = refuse
    with caplog.at_level(logging.WARNING):
        await publish(kube, BODY, ("Normal", "R", "m"), now=NOW)
    (record,) = caplog.records
    assert (record.getMessage(), record.status) == ("Event not posted", 403)


@pytest.mark.parametrize(
    ("before", "count"),
    [
        pytest.param(Status(), 1, id="a new object"),
        pytest.param(Status(observed_generation=1), 1, id="a changed spec"),
        pytest.param(Status(observed_generation=2), 0, id="told before"),
    ],
)
def test_what_is_deprecated_is_told_once_for_each_change_of_the_spec(before, count):
    auth = {"authType": "AccessKeys", "secretName": "keys"}
    spec = {"sourceRef": {"name": "r"}, "aws": {"auth": auth}, "secrets": {"environment": "dev"}}
    told = warnings_of(parse_spec({"spec": spec}), before, generation=2)
    assert [event[:2] for event in told] == [("Warning", "Deprecated")] * count
