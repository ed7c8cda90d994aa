"""Status: what is written after each outcome, and what survives a malformed one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import ConfigError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.inventory import InventoryEntry
from secret_manager_controller.model.plan import Conflict
from secret_manager_controller.model.report import Failure, Report
from secret_manager_controller.model.status import (
    Attempt,
    Condition,
    Status,
    is_told,
    parse_status,
    report_error,
    summarize,
)

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T1 = datetime(2026, 1, 2, 3, 9, 5, tzinfo=UTC)
ATTEMPT = Attempt(generation=3, handled_at="1700000000", revision="main@sha1:abc", settled_key="key-1")
ENTRY = InventoryEntry("db", "v1", "h1")


def report(**changes):
    return Report(**{"inventory": {"db": ENTRY}, "synced": 1, "wanted": 1, "created": ("db",)} | changes)


def conditions_of(status):
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_complete_report_is_ready_and_records_all_that_the_next_pass_needs():
    status = summarize(Status(), ATTEMPT, report(), now=T0)
    assert status == Status(
        observed_generation=3,
        last_reconcile_time="2026-01-02T03:04:05Z",
        last_handled_reconcile_at="1700000000",
        last_attempted_revision="main@sha1:abc",
        last_applied_revision="main@sha1:abc",
        settled_key="key-1",
        secrets_synced=1,
        history=("main@sha1:abc",),
        inventory={"db": ENTRY},
        conditions=(
            Condition("Ready", "True", "ReconciliationSucceeded", "Synced 1 secrets", 3, "2026-01-02T03:04:05Z"),
        ),
    )


def test_a_pass_without_work_changes_only_the_time():
    first = summarize(Status(), ATTEMPT, report(orphans=("old",)), now=T0)
    second = summarize(first, ATTEMPT, None, now=T1)
    assert second.last_reconcile_time == "2026-01-02T03:09:05Z"
    assert (second.conditions, second.inventory, second.settled_key) == (
        first.conditions, first.inventory, first.settled_key,
    )  # fmt: skip


STORED = {
    name: value for name, value in summarize(Status(), ATTEMPT, report(), now=T0).as_json().items() if value is not None
}


@pytest.mark.parametrize(
    ("changes", "later", "expected"),
    [
        pytest.param({}, timedelta(minutes=59), True, id="the same, within the hour"),
        pytest.param({}, timedelta(minutes=61), False, id="the same, after an hour"),
        pytest.param({"lastStoreCalls": 7, "lastTraceId": "t"}, timedelta(0), True, id="of the last reconcile alone"),
        pytest.param({"secrets": []}, timedelta(0), False, id="another inventory"),
        pytest.param({"observedGeneration": 2}, timedelta(0), False, id="another generation"),
        pytest.param({"conditions": "?"}, timedelta(0), False, id="malformed"),
        pytest.param({"lastReconcileTime": "?"}, timedelta(0), False, id="no time"),
        pytest.param({"lastReconcileTime": None}, timedelta(0), False, id="null as a time"),
        pytest.param({"lastReconcileTime": "2026-01-02T03:04:05"}, timedelta(0), False, id="a time without a zone"),
    ],
)
def test_a_status_is_written_when_it_says_something_else_or_has_not_for_an_hour(changes, later, expected):
    status = summarize(parse_status(STORED), ATTEMPT, None, now=T0 + later)
    assert expected is is_told(status, STORED | changes, now=T0 + later)


def test_a_status_that_was_never_written_is():
    assert not is_told(Status(), {}, now=T0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(RetryableError(Reason.SOURCE_NOT_READY, "m"), "Reconciling", id="retryable"),
        pytest.param(PermanentError(Reason.DECRYPTION_FAILED, "m"), "Stalled", id="permanent"),
        pytest.param(ConfigError("m"), "Stalled", id="config"),
        pytest.param(RetryableError(Reason.INTERNAL_ERROR, "m"), "Reconciling", id="internal"),
    ],
)
def test_an_error_before_any_write_keeps_the_inventory(error, expected):
    before = summarize(Status(), ATTEMPT, report(), now=T0)
    after = summarize(before, Attempt(generation=4), error, now=T1)
    assert conditions_of(after) == {"Ready": ("False", error.reason), expected: ("True", error.reason)}
    assert (after.inventory, after.secrets_synced, after.settled_key) == ({"db": ENTRY}, 1, "key-1")
    assert (after.observed_generation, after.last_applied_revision) == (4, "main@sha1:abc")
    assert after.last_handled_reconcile_at == "1700000000"


def test_partial_success_is_told_and_not_settled():
    denied = PermanentError(Reason.STORE_ACCESS_DENIED, "no PutSecretValue on 'b'")
    partial = report(synced=25, wanted=50, failures=(Failure("b", denied),), left=24)
    status = summarize(Status(settled_key="old", last_applied_revision="old"), ATTEMPT, partial, now=T0)
    assert status.condition("Ready").message == "Synced 25 of 50 secrets; 25 not written: no PutSecretValue on 'b'"
    assert (status.secrets_synced, status.settled_key, status.last_applied_revision) == (25, None, "old")
    assert conditions_of(status) == {
        "Ready": ("False", "StoreAccessDenied"), "Stalled": ("True", "StoreAccessDenied"),
    }  # fmt: skip


def test_a_retryable_failure_decides_over_a_permanent_one():
    failures = (
        Failure("a", PermanentError(Reason.STORE_ACCESS_DENIED, "p")),
        Failure("b", RetryableError(Reason.RATE_LIMITED, "r", retry_after=7)),
    )
    error = report_error(report(failures=failures))
    assert isinstance(error, RetryableError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        pytest.param(
            {"conflicts": (Conflict("db", "'db' is managed"),)}, "Conflict", "1 in conflict: 'db'", id="conflict"
        ),
        pytest.param({"held": ("x", "y")}, "PruneBlocked", "confirm-prune", id="held"),
    ],
)
def test_what_a_human_must_decide_is_stalled(changes, reason, told):
    status = summarize(Status(), ATTEMPT, report(**changes), now=T0)
    assert conditions_of(status) == {"Ready": ("False", reason), "Stalled": ("True", reason)}
    assert told in status.condition("Ready").message
    assert status.settled_key is None


def test_the_transition_time_moves_only_with_the_status():
    first = summarize(Status(), ATTEMPT, PermanentError(Reason.CONFLICT, "a"), now=T0)
    second = summarize(first, ATTEMPT, PermanentError(Reason.BUILD_FAILED, "b"), now=T1)
    third = summarize(second, ATTEMPT, report(), now=T1)
    times = [status.condition("Ready").last_transition_time for status in (first, second, third)]
    assert times == ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:09:05Z"]


def test_a_status_survives_being_stored():
    status = summarize(Status(), ATTEMPT, report(), now=T0)
    assert parse_status(status.as_json()) == status
    assert parse_status({}) == Status()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "version", "sourceHash", "type", "status"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(Status().as_json())), JSON))
def test_any_stored_status_can_be_read(raw):
    summarize(parse_status(raw), ATTEMPT, report(), now=T0)


def test_the_store_calls_of_the_last_reconcile_are_told_whatever_came_of_it():
    for outcome in (None, PermanentError(Reason.CONFLICT, "no")):
        status = summarize(
            Status(store_calls=9), Attempt(generation=1, store_calls=3), outcome, now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        assert status.as_json()["lastStoreCalls"] == 3
        assert parse_status(status.as_json()).store_calls == 3


def test_keys_that_expire_are_a_condition_of_their_own_that_stays_until_they_are_looked_at_again():
    expiring = replace(ATTEMPT, expiring="PGP key A expires on 2026-02-01")
    first = summarize(Status(), expiring, report(), now=T0)
    assert conditions_of(first)["Ready"] == ("True", "ReconciliationSucceeded")
    assert conditions_of(first)["KeyExpiring"] == ("True", "KeyExpiresSoon")
    unseen = summarize(first, ATTEMPT, RetryableError(Reason.SOURCE_NOT_READY, "m"), now=T1)
    assert unseen.condition("KeyExpiring") == first.condition("KeyExpiring")
    again = summarize(unseen, expiring, None, now=T1)
    assert again.condition("KeyExpiring") == first.condition("KeyExpiring")
    mended = summarize(again, replace(ATTEMPT, expiring=""), None, now=T1)
    assert mended.condition("KeyExpiring") is None
    assert parse_status(first.as_json()) == first


def test_a_commit_that_touches_nothing_counts_as_applied():
    first = summarize(Status(), replace(ATTEMPT, inputs_key="inputs"), report(), now=T0)
    second = summarize(first, Attempt(3, revision="main@sha1:def", settled_key="key-2"), None, now=T1)
    assert (second.last_applied_revision, second.settled_key, second.inputs_key) == (
        "main@sha1:def", "key-2", "inputs",
    )  # fmt: skip


# --- a source that goes back


def applied(status, revision, outcome=...):
    return summarize(status, Attempt(generation=1, revision=revision), report() if outcome is ... else outcome, now=T0)


def told_back(status):
    condition = status.condition("WentBack")
    return condition and (condition.status, condition.reason, condition.message)


def test_a_source_that_goes_back_is_told_for_as_long_as_it_stays_there():
    status = applied(applied(Status(), "a"), "b")
    assert told_back(status) is None
    back = ("True", "RevisionWentBack", "the source went back to a, which was applied before b")
    status = applied(status, "a")
    assert told_back(status) == back
    for outcome in (None, report(), RetryableError(Reason.STORE_UNAVAILABLE, "m")):
        status = applied(status, "a", outcome)
        assert told_back(status) == back
    status = applied(status, None, RetryableError(Reason.SOURCE_NOT_READY, "m"))
    assert told_back(status) == back
    assert told_back(applied(status, "b")) is None
    assert told_back(applied(status, "c")) is None


def test_going_back_is_told_even_if_it_fails():
    status = applied(applied(Status(), "a"), "b")
    failed = applied(status, "a", PermanentError(Reason.DECRYPTION_FAILED, "m"))
    assert told_back(failed)
    assert failed.last_applied_revision == "b"


def test_a_history_survives_the_api_server_and_is_bounded():
    status = Status()
    for number in range(30):
        status = applied(status, f"r{number}")
    assert status.history == tuple(f"r{number}" for number in range(10, 30))
    assert parse_status(status.as_json()).history == status.history
    assert parse_status({"appliedRevisions": "x"}).history == ()
