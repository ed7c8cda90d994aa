"""A rolling update: replicas of the version before and of this one share the work, and read each other's status.

The version before is this code with another stamp: `importlib.metadata` finds its dist-info first. What it would have
recorded is in `golden/status-0.0.9.json`.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from secret_manager_controller import __version__
from secret_manager_controller.testing.stack import condition

pytestmark = [pytest.mark.real]

OLDER = "0.0.9"
RECORDED = Path(__file__).parent / "golden" / f"status-{OLDER}.json"


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Return the settings of a replica whose wheel is of the version before."""
    directory = tmp_path_factory.mktemp("older")
    stamp = directory / f"secret_manager_controller-{OLDER}.dist-info"
    stamp.mkdir()
    (stamp / "METADATA").write_text(f"Metadata-Version: 2.1\nName: secret-manager-controller\nVersion: {OLDER}\n")
    return {"PYTHONPATH": os.pathsep.join([str(directory), *sys.path])}


def version(replica):
    return next(record["version"] for record in replica.controller.records() if record.get("message") == "Started")


def test_two_versions_share_the_work_and_no_secret_has_two_writers(day, older):
    old = [day.replicas.start(**older) for _ in range(2)]
    day.replicas.wait_balanced()
    day.workload.settle()
    with day.load():
        for replica in old:  # As the Deployment does: one more, then one less.
            day.replicas.start()
            day.replicas.wait_balanced()
            day.pause(0.2, 0.5)
            replica.terminate()
            assert replica.stop() == 0
            day.replicas.wait_balanced()
    assert [version(replica) for replica in day.replicas.all] == [OLDER, OLDER, __version__, __version__]
    day.end()


def test_both_versions_held_leases_and_wrote_status(day, older):
    day.replicas.start(**older)
    day.replicas.start()
    day.replicas.wait_balanced()
    day.workload.settle()
    events = day.stack.plane.audit_events()
    patched = [each for each in events if each["verb"] == "patch" and each["requestURI"].endswith("/app/status")]
    wrote = {each.get("userAgent", "").partition(" ")[0] for each in patched if each["responseStatus"]["code"] == 200}
    assert wrote >= {f"secret-manager-controller/{each}" for each in (OLDER, __version__)}


def placed(value, tenant, version_now):
    """Return a recorded status for another namespace, with the versions that the store has now."""
    text = json.dumps(value).replace("NAMESPACE", tenant.namespace)
    status = json.loads(text)
    for secret in status["secrets"]:
        secret["version"] = version_now[secret["name"]]
    return status


def test_a_status_that_the_version_before_recorded_is_read_and_nothing_is_written(stack, make_tenant):
    tenant = make_tenant("upgraded")
    artifact = tenant.commit(A="1", B="2")
    tenant.apply()
    with stack.controller():
        now = tenant.applied(artifact)
    versions = {secret["name"]: secret["version"] for secret in now["secrets"]}
    recorded = placed(json.loads(RECORDED.read_text()), tenant, versions)
    recorded["lastAppliedRevision"] = recorded["lastAttemptedRevision"] = artifact.revision
    stack.patch(f"{tenant.path}/status", {"status": dict.fromkeys(now) | recorded})
    stack.aws.clear_calls()
    with stack.controller():
        status = tenant.reconcile()
    assert condition(status)["status"] == "True"
    assert tenant.writes() == []
    assert {secret["name"]: secret["version"] for secret in status["secrets"]} == versions


def test_the_recorded_status_still_fits_the_schema(stack, make_tenant):
    tenant = make_tenant("schema")
    tenant.apply()
    recorded = placed(
        json.loads(RECORDED.read_text()), tenant, dict.fromkeys([tenant.name("A"), tenant.name("B")], "v")
    )
    stack.patch(f"{tenant.path}/status", {"status": recorded})
    assert {field: tenant.status()[field] for field in recorded} == recorded
