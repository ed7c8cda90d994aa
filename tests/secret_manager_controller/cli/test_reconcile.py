"""`msmctl reconcile`, without and with --force."""

import asyncio

import pytest

from secret_manager_controller.cli import force
from secret_manager_controller.cli.cluster import ObjectKey, connect
from secret_manager_controller.cli.options import ClusterOptions
from secret_manager_controller.cli.trigger import next_timestamp
from secret_manager_controller.model.annotations import DELETION_POLICY, FINALIZER, RECONCILE

ARGUMENTS = ("reconcile", "--name", "idam-dev-secrets", "--namespace", "pricewhisperer")
KEY = ("pricewhisperer", "idam-dev-secrets")

TRIGGERED = """\
🔄 Triggering reconciliation for SecretManagerConfig 'pricewhisperer/idam-dev-secrets'...
✅ Reconciliation triggered successfully
   Resource: pricewhisperer/idam-dev-secrets
   Timestamp: {timestamp}
"""

FORCED = f"""\
🔄 Force reconciliation mode enabled
   Resource: pricewhisperer/idam-dev-secrets

🗑️  Deleting SecretManagerConfig 'pricewhisperer/idam-dev-secrets'...
   ✅ Resource deleted

⏳ Waiting for GitOps to recreate resource...
   (This may take a few moments depending on GitOps sync interval)
   ⏳ Still waiting... (10s elapsed)
   ⏳ Still waiting... (20s elapsed)
   ✅ Resource recreated (generation: 1)

⏳ Waiting for resource to stabilize...

{TRIGGERED.format(timestamp=1702567917)}
📊 Watching reconciliation logs...
   (Use 'kubectl logs -n microscaler-system -l app=secret-manager-controller --tail=50 -f' to see detailed logs)
"""


@pytest.fixture
def stored(api, reference_object):
    """Store the reference's object; return the API server."""
    api.put(reference_object)
    return api


def annotations(api):
    return api.objects[KEY]["metadata"].get("annotations", {})


def test_writes_the_annotation_and_prints_the_references_lines(stored, msmctl):
    result = msmctl(*ARGUMENTS)
    assert result.stdout == TRIGGERED.format(timestamp=1702567890)
    assert (result.stderr, result.exit_code) == ("", 0)
    assert annotations(stored) == {RECONCILE: "1702567890"}


def test_needs_get_and_patch_only(stored, msmctl):
    stored.forbidden = {"list", "delete"}
    assert msmctl(*ARGUMENTS).exit_code == 0
    assert [method for method, _ in stored.requests] == ["GET", "PATCH"]


def test_writes_a_new_value_each_time_within_one_second_too(stored, msmctl):
    values = []
    for _ in range(3):
        msmctl(*ARGUMENTS)
        values.append(annotations(stored)[RECONCILE])
    assert values == ["1702567890", "1702567891", "1702567892"]


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (None, "100"),
        ("99", "100"),
        ("100", "101"),
        ("200", "201"),
        ("2024-01-15T10:30:00Z", "100"),
        ("9" * 13, "100"),
        ("٣٣٣", "100"),
        (7, "100"),
    ],
    ids=["none", "older", "same", "from-the-future", "of-flux", "absurd", "other-digits", "no-text"],
)
def test_next_timestamp_differs_from_the_previous_one(previous, expected):
    assert next_timestamp(previous, now=100.9) == expected


def test_looks_anew_when_the_controller_wrote_in_between(stored, msmctl):
    def write_status_once(method, _):
        if method == "PATCH":
            stored.before = lambda *_: None
            stored.put(stored.objects[KEY])

    stored.before = write_status_once
    assert msmctl(*ARGUMENTS).exit_code == 0
    assert [method for method, _ in stored.requests] == ["GET", "PATCH", "GET", "PATCH"]


def test_gives_up_on_an_object_that_changes_all_the_time(stored, msmctl):
    def write_status(method, _):
        if method == "PATCH":
            stored.put(stored.objects[KEY])

    stored.before = write_status
    result = msmctl(*ARGUMENTS)
    assert result.stderr.startswith("Error: Failed to trigger reconciliation: the object has been modified")
    assert result.exit_code == 1


def test_tells_a_missing_permission_as_the_reference_names_it(stored, msmctl):
    stored.forbidden = {"patch"}
    result = msmctl(*ARGUMENTS)
    assert result.stderr == (
        'Error: Failed to trigger reconciliation: secretmanagerconfigs is forbidden: User "jane" cannot patch resource; '
        "have the verb patch on secretmanagerconfigs.secret-management.microscaler.io granted "
        "(docs/msmctl.md shows the role)\n"
    )
    assert result.exit_code == 1


def test_tells_a_missing_object_as_the_reference_names_it(msmctl):
    result = msmctl("reconcile", "-n", "none", "-N", "here")
    assert result.stderr.startswith("Error: Resource not found: SecretManagerConfig 'here/none' does not exist; ")
    assert result.exit_code == 1


def test_tells_an_object_that_vanished_between_look_and_patch(stored, msmctl):
    stored.before = lambda method, _: stored.objects.clear() if method == "PATCH" else None
    assert msmctl(*ARGUMENTS).stderr.startswith("Error: Resource not found: ")


def test_notes_that_a_suspended_or_vanishing_object_will_not_be_reconciled(stored, msmctl, reference_object):
    reference_object["spec"]["suspend"] = True
    reference_object["metadata"]["deletionTimestamp"] = "2024-01-16T00:00:00Z"
    stored.put(reference_object)
    result = msmctl(*ARGUMENTS)
    assert result.stderr.splitlines() == [
        "note: spec.suspend is true: nothing is reconciled until it is false",
        "note: the object is being deleted since 2024-01-16T00:00:00Z",
    ]
    assert result.exit_code == 0


def test_force_prints_the_references_output_to_the_byte(stored, msmctl, clock, reference_object):
    clock.at(25, lambda: stored.put(reference_object))
    result = msmctl(*ARGUMENTS, "--force")
    assert result.stdout == FORCED
    assert (result.stderr, result.exit_code) == ("", 0)
    assert annotations(stored) == {RECONCILE: "1702567917"}
    assert [method for method, _ in stored.requests][:2] == ["GET", "DELETE"]


def test_force_finds_a_recreation_that_happened_between_two_looks_by_its_uid(stored, msmctl, reference_object):
    """The controller of a busy GitOps tool may be faster than we look; the name is there all the time."""
    stored.held = True
    looks = []

    def recreate(method, path):
        if method == "GET" and "limit" not in path:
            looks.append(path)
            if len(looks) == 3:
                stored.put(reference_object)

    stored.before = recreate
    result = msmctl(*ARGUMENTS, "--force")
    assert "   ✅ Resource recreated (generation: 1)\n" in result.stdout
    assert "Still waiting" not in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "change",
    [{"spec": {"deletionPolicy": "Delete"}}, {"metadata": {"finalizers": [FINALIZER]}}],
    ids=["policy", "finalizer"],
)
def test_force_leaves_the_store_alone(stored, msmctl, clock, reference_object, change):
    """The annotation that says Orphan is there before the deletion is asked for."""
    for field, values in change.items():
        reference_object[field] |= values
    stored.put(reference_object)
    deleted = []
    stored.before = lambda method, _: deleted.append(annotations(stored)) if method == "DELETE" else None
    clock.at(3, lambda: stored.put(reference_object))
    result = msmctl(*ARGUMENTS, "--force")
    assert deleted == [{DELETION_POLICY: "Orphan"}]
    assert result.exit_code == 0
    assert result.stderr == "note: deletionPolicy Delete is overridden for this deletion: the store keeps its secrets\n"


def test_force_never_deletes_an_object_that_it_has_not_seen_as_it_is(stored, msmctl, clock, reference_object):
    """Someone sets deletionPolicy Delete between our look and the deletion: the deletion is not carried out blindly."""

    def change_once(method, _):
        if method == "DELETE":
            stored.before = lambda *_: None
            stored.objects[KEY]["spec"]["deletionPolicy"] = "Delete"
            stored.put(stored.objects[KEY])

    stored.before = change_once
    clock.at(3, lambda: stored.put(reference_object))
    assert msmctl(*ARGUMENTS, "--force").exit_code == 0
    assert [method for method, _ in stored.requests][:5] == ["GET", "DELETE", "GET", "PATCH", "DELETE"]


def test_force_gives_up_after_five_minutes_and_says_what_to_do(stored, msmctl, clock):
    result = msmctl(*ARGUMENTS, "--force")
    assert result.stderr == (
        "Error: SecretManagerConfig 'pricewhisperer/idam-dev-secrets' was deleted and GitOps has not made it anew; see "
        "that the Flux Kustomization or Argo CD Application that holds it is not suspended, or apply its manifest; "
        "waited 300s\n"
    )
    assert "   ⏳ Still waiting... (290s elapsed)\n" in result.stdout
    assert (clock.time, result.exit_code) == (300, 1)


def test_force_waits_as_long_as_it_is_told(stored, msmctl, clock):
    assert msmctl(*ARGUMENTS, "--force", "--timeout", 7).exit_code == 1
    assert clock.time == 7


def test_force_names_the_finalizers_that_hold_an_object(stored, msmctl, reference_object):
    reference_object["metadata"]["finalizers"] = ["example.com/\x1b[2Jhold"]
    stored.put(reference_object)
    stored.held = True
    result = msmctl(*ARGUMENTS, "--force")
    assert "is being deleted and is held by example.com/?[2Jhold; see that the controller runs" in result.stderr
    assert result.exit_code == 1


def test_force_waits_for_an_api_server_that_is_away_for_a_while(stored, msmctl, clock, reference_object, refuse):
    def away(method, _):
        if method == "GET" and 2 < clock.time < 20:
            raise refuse(503, "the server is starting")

    stored.before = away
    clock.at(21, lambda: stored.put(reference_object))
    assert msmctl(*ARGUMENTS, "--force").exit_code == 0


def test_force_ends_when_the_login_is_refused(stored, msmctl, clock, refuse):
    def expired(*_):
        if clock.time > 2:
            raise refuse(401, "Unauthorized")

    stored.before = expired
    result = msmctl(*ARGUMENTS, "--force")
    assert "Unauthorized; the login was refused" in result.stderr
    assert (clock.time, result.exit_code) == (3, 1)


def test_force_needs_the_verb_delete_and_says_so(stored, msmctl):
    stored.forbidden = {"delete"}
    result = msmctl(*ARGUMENTS, "--force")
    assert result.stderr.startswith(
        "Error: Failed to delete SecretManagerConfig 'pricewhisperer/idam-dev-secrets': secretmanagerconfigs is forbidden"
    )
    assert "have the verb delete (--force) and patch on" in result.stderr
    assert KEY in stored.objects


def test_force_takes_its_override_back_when_it_may_not_delete(stored, msmctl, reference_object):
    """Else whoever deletes the object later would leave its secrets in the store unknowingly."""
    reference_object["spec"]["deletionPolicy"] = "Delete"
    stored.put(reference_object)
    stored.forbidden = {"delete"}
    result = msmctl(*ARGUMENTS, "--force")
    assert result.stderr.startswith("Error: Failed to delete SecretManagerConfig ")
    assert [method for method, _ in stored.requests] == ["GET", "PATCH", "DELETE", "PATCH"]
    assert annotations(stored) == {}


def test_force_says_when_its_override_stays(stored, msmctl, reference_object, refuse):
    reference_object["spec"]["deletionPolicy"] = "Delete"
    stored.put(reference_object)

    def fail(method, _):
        if method == "DELETE" or annotations(stored):
            raise refuse(500, "away")

    stored.before = fail
    first, second = msmctl(*ARGUMENTS, "--force").stderr.splitlines()
    assert first == f"note: the annotation {DELETION_POLICY}=Orphan stays on the object: away"
    assert second.startswith("Error: Failed to delete SecretManagerConfig ")


def test_force_of_a_missing_object_deletes_nothing(msmctl):
    result = msmctl("reconcile", "-n", "none", "--force")
    assert result.stderr.startswith("Error: Resource not found: ")
    assert result.exit_code == 1


async def test_force_tells_what_is_left_when_it_is_interrupted(stored, kubeconfig, clock, capsys):
    key = ObjectKey(*KEY)
    async with connect(ClusterOptions(str(kubeconfig), None)) as kube:
        task = asyncio.create_task(force.recreate(kube, key, clock, patience=300))
        clock.at(1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert capsys.readouterr().err == (
        f"note: SecretManagerConfig '{key}' was deleted; until GitOps makes it anew, nothing is reconciled\n"
    )


def test_timeout_without_force_is_a_usage_error(stored, msmctl):
    result = msmctl(*ARGUMENTS, "--timeout", 5)
    assert "--timeout is how long --force waits" in result.stderr
    assert (result.exit_code, stored.requests) == (64, [])
