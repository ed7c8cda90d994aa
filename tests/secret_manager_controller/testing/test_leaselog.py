"""What was seen of the claims on a real API server."""

import time
from datetime import UTC, datetime

import pytest

from lease_sharding.leases import Lease, Names, claimed, format_lease, opened, placeholder, released
from secret_manager_controller.testing.leaselog import LeaseLog

NAMESPACE, GROUP, SHARDS = "lease-log", "group", 2
NAMES = Names(GROUP, SHARDS)
PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"


@pytest.fixture
def put(control_plane):
    """Return a function that makes a Lease be as given."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    control_plane.request("POST", "/api/v1/namespaces", body=body)
    control_plane.request("DELETE", PATH)

    def run(lease):
        path = f"{PATH}/{lease.name}?fieldManager=test&force=true"
        body = format_lease(lease, namespace=NAMESPACE)
        status, answer = control_plane.request("PATCH", path, body=body, content_type="application/apply-patch+yaml")
        assert status in (200, 201), answer

    return run


@pytest.fixture
def log(control_plane, put):
    with LeaseLog(control_plane, namespace=NAMESPACE, group=GROUP, shards=SHARDS) as running:
        yield running


def session(member, number=1):
    now = datetime.now(UTC)
    return opened(
        Lease(NAMES.session(member)),
        group=GROUP,
        member=member,
        session=f"{member}-{number}",
        ended=(),
        duration=10,
        now=now,
    )


def claim(shard, member, *, epoch, number=1):
    return claimed(
        placeholder(NAMES, shard, epoch=0),
        names=NAMES,
        shard=shard,
        member=member,
        session=f"{member}-{number}",
        epoch=epoch,
        duration=10,
        now=datetime.now(UTC),
    )


def until(what):
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def namespace_in(log, shard):
    return next(name for name in ("a", "b", "c", "d", "e", "f") if log.shard(name) == shard)


def test_owners_are_those_whose_claim_is_of_their_present_session(log, put):
    put(session("m"))
    put(claim(0, "m", epoch=1))
    put(claim(1, "m", epoch=1, number=0))
    until(lambda: log.gains(1))
    assert (dict(log.owners()), dict(log.shares())) == ({0: "m"}, {"m": 1})
    put(released(claim(0, "m", epoch=1), now=datetime.now(UTC)))
    until(lambda: not log.owners())


def test_ownerships_are_told_in_order_with_gaps_where_something_was_missed(log, put):
    before = time.time()
    put(claim(0, "a", epoch=1))
    until(lambda: log.gains(0))
    put(claim(0, "b", epoch=2))
    until(lambda: len(log.gains(0)) == 2)
    put(claim(0, "c", epoch=4))
    until(lambda: len(log.gains(0)) == 3)
    found = log.ownerships(namespace_in(log, 0))
    assert [each.member for each in found] == ["a", "b", None, "c"]
    assert before < found[0].seen < found[1].seen < found[2].seen == found[3].seen < time.time()
    assert log.ownerships(namespace_in(log, 1)) == []


def test_what_was_edited_by_hand_is_no_gain(control_plane, log, put):
    put(claim(0, "a", epoch=1))
    until(lambda: log.gains(0))
    edit = {"spec": {"holderIdentity": "thief", "leaseTransitions": 9}}
    control_plane.request("PATCH", f"{PATH}/{NAMES.claim(0)}", body=edit, content_type="application/merge-patch+json")
    put(claim(1, "a", epoch=1))
    until(lambda: log.gains(1))
    assert [gain.member for gain in log.gains(0)] == ["a"]
