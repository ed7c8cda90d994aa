"""The bad days that take long; `make chaos` runs them, `SEED=` repeats them."""

import time
from urllib.parse import urlsplit

import pytest

from secret_manager_controller.kube import LEASES
from secret_manager_controller.testing.clocks import ShiftedClock, compiler
from secret_manager_controller.testing.network import NetworkNamespace, allowed
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE

pytestmark = [pytest.mark.real, pytest.mark.chaos]

SESSION = 7.0  # Seconds; that of SHORT_SESSIONS.
HOUR = 3600


def test_the_api_server_is_gone_for_a_minute(day):
    """Every session lapses: nobody writes, and everybody begins anew when it is back."""
    members = day.start(3)
    with day.load():
        day.pause(1, 2)
        with day.stack.plane.api_server_gone():
            time.sleep(SESSION + 2)
            writes = len(day.stack.aws.writes())
            time.sleep(60 - SESSION - 2)
            assert len(day.stack.aws.writes()) == writes
        day.replicas.wait_balanced(*members)
    day.end()


def test_renewals_of_one_member_slowed_to_30_seconds(day):
    """It loses its session, and its renewals that arrive late change nothing."""
    (slow,) = day.start(1, proxied=True)
    others = day.start(2)
    with day.load():
        slow.way().delay(30, of="/leases")
        day.replicas.wait_balanced(*others)
        time.sleep(31)  # What was delayed arrives now.
        assert day.replicas.balanced(*others)
        slow.way().delay(0)
        day.replicas.wait_balanced(slow, *others)
    day.end()


def lease(name):
    return LEASES.url(CONTROLLER_NAMESPACE, name)


def test_claims_and_a_session_are_stolen_edited_and_deleted_by_hand(day):
    first, second, third = day.start(3)
    names = day.replicas.log.names
    shards = [day.replicas.log.shard(tenant.namespace) for tenant in day.workload.tenants]
    stolen, edited, emptied, deleted, *_ = day.random.sample(sorted(set(shards)), 4)
    thief = next(each.name for each in (first, second) if stolen not in day.replicas.owned(each))
    with day.load():
        day.stack.patch(lease(names.claim(stolen)), {"spec": {"holderIdentity": thief}})
        day.stack.patch(lease(names.claim(edited)), {"spec": {"leaseTransitions": 1_000_000}})
        day.stack.patch(lease(names.claim(emptied)), {"spec": {"holderIdentity": "nobody-we-know"}})
        day.stack.delete(lease(names.claim(deleted)))
        time.sleep(2 * SESSION)
        day.replicas.wait_balanced(first, second, third)
        day.stack.delete(lease(names.session(third.name)))
        time.sleep(2 * SESSION)
        day.replicas.wait_balanced(first, second, third)
        day.stack.delete_leases()
        time.sleep(2 * SESSION)
        day.replicas.wait_balanced(first, second, third)
    day.end()


@pytest.mark.skipif(compiler() is None, reason="a wall clock that jumps needs a C compiler")
def test_clocks_that_jump_by_an_hour(day, tmp_path):
    """Nobody's ownership follows the wall clock; a crash beside it is seen all the same."""
    directories = [tmp_path / name for name in ("ahead", "behind")]
    for directory in directories:
        directory.mkdir()
    with ShiftedClock(directories[0]) as ahead, ShiftedClock(directories[1]) as behind:
        # Through a proxy, since TLS certificates do know the time of day.
        clocks = [ahead.environment, behind.environment, {}]
        members = [day.replicas.start(proxied=True, **environment) for environment in clocks]
        day.replicas.wait_balanced()
        day.workload.settle()
        gains = [day.replicas.log.gains(shard) for shard in range(32)]
        with day.load():
            for hours in (1, -1, 0, 1):
                ahead.shift(hours * HOUR)
                behind.shift(-hours * HOUR)
                time.sleep(SESSION / 2)
            assert gains == [day.replicas.log.gains(shard) for shard in range(32)]
            members[0].kill()
            day.replicas.wait_balanced(*members[1:])
            behind.shift(HOUR)
            assert members[1].stop() == 0
            day.replicas.wait_balanced(members[2])
    day.end()


def test_one_replica_becomes_five_and_two_while_objects_change(day):
    day.start(1)
    with day.load():
        for _ in range(4):
            day.replicas.start()
        day.replicas.wait_balanced()
        assert sorted(day.replicas.log.shares().values()) == [6, 6, 6, 7, 7]
        day.pause(0.5, 1.5)
        leaving = day.random.sample(day.replicas.living(), 3)
        for replica in leaving[:2]:
            replica.terminate()
        leaving[2].kill()
        day.replicas.wait_balanced(*(each for each in day.replicas.living() if each not in leaving))
    assert [replica.stop() for replica in leaving[:2]] == [0, 0]
    day.end()


@pytest.mark.skipif(not allowed(), reason="no right to make network namespaces")
def test_one_member_in_a_network_namespace_is_partitioned(day):
    """It reaches neither API server nor store, and is not told so."""
    with NetworkNamespace() as network:
        for address in (day.stack.plane.url, day.stack.aws.endpoint_url, day.stack.artifacts.url):
            network.forward(urlsplit(address).port)
        (cut,) = day.start(1, prefix=network.prefix)
        others = day.start(2)
        with day.load():
            day.pause(0.5, 1.5)
            with network.partitioned():
                day.replicas.wait_balanced(*others)
                day.pause(0.5, 3)
            day.replicas.wait_balanced(cut, *others)
        day.end()


def test_one_member_is_cut_off_from_the_api_server_but_not_from_the_store(day):
    """It could still write, and must stop by itself; what it sent arrives when others own its shards."""
    (cut,) = day.start(1, proxied=True)
    others = day.start(2)
    with day.load():
        day.pause(0.5, 1.5)
        with cut.way().partitioned():
            day.replicas.wait_balanced(*others)
            day.pause(0.5, 3)
        day.replicas.wait_balanced(cut, *others)
    day.end()


@pytest.mark.parametrize("operation", ["PutSecretValue", "UpdateSecretVersionStage"])
def test_a_call_that_the_store_carries_out_late_does_not_undo_the_next_owners(day, operation):
    """The residual window: no fence reaches into the store. There a label moves only from where the writer saw it."""
    first, second = day.start(2)
    tenant = day.random.choice(day.tenants_of(first))
    day.stack.aws.hang(operation, 20)
    day.workload.change(tenant)
    day.stack.wait("the call to be under way", lambda: not day.stack.aws.faults_left())
    with first.frozen():
        day.replicas.wait_balanced(second)
        day.workload.change(tenant)
        day.workload.settle()
        day.stack.wait("the late call to be over", lambda: any(call.seconds > 20 for call in day.stack.aws.writes()))
    day.replicas.wait_balanced(first, second)
    day.workload.change(tenant)
    day.workload.settle()
    held = day.stack.aws.values()
    assert {name: held[name] for name in day.workload.git()} == {
        name: values[-1] for name, values in day.workload.git().items()
    }
    verdict = day.replicas.verdict(day.workload)
    assert any(f"{operation}" in found and "at one time" in found for found in verdict.double_writers)
