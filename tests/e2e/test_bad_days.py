"""Bad days of replicas on real processes and a real API server, judged by the referee; the longer ones are beside it."""

import pytest

from secret_manager_controller.testing import processes
from secret_manager_controller.testing.tenants import metric

pytestmark = [pytest.mark.real]


def test_kill_9_under_load(day):
    first, second, third = day.start(3)
    with day.load():
        day.pause(0.5, 1.5)
        victim = day.random.choice([first, second, third])
        victim.kill()
        day.replicas.wait_balanced()
    day.end()
    assert len(day.replicas.living()) == 2


def test_sigterm_under_load(day):
    """The shards are handed over: nobody waits for the session to lapse."""
    first, second, third = day.start(3)
    with day.load():
        day.pause(0.5, 1.5)
        assert first.stop() == 0
        day.replicas.wait_balanced(second, third)
        assert second.stop() == 0
        day.replicas.wait_balanced(third)
    day.end()
    handed, taken = (
        metric(third.controller, f"secret_manager_shard_{kind}_total") for kind in ("handovers", "takeovers")
    )
    assert handed >= 32
    assert taken == 0


def test_sigstop_past_expiry_and_sigcont_in_the_middle_of_a_write(day):
    first, second = day.start(2)
    tenant = day.random.choice(day.tenants_of(first))
    day.stack.aws.hang("PutSecretValue", 5)
    day.workload.change(tenant)
    day.stack.wait("the write to be under way", lambda: not day.stack.aws.faults_left())
    with first.frozen(), day.load():
        day.replicas.wait_balanced(second)
        day.workload.change(tenant)
        day.pause(0.5, 1.5)
    with day.load():
        day.replicas.wait_balanced(first, second)
    day.end()


def test_another_shard_count_refuses_to_start_and_disturbs_nobody(day):
    day.start(1)
    gains = [day.replicas.log.gains(shard) for shard in range(32)]
    other = day.replicas.start(SHARDS="16")
    with day.load():
        assert other.controller.process.wait(60) == 1
        day.pause(0.5, 1.5)
    told = processes.tail(other.controller.log).splitlines()[-1]
    assert told.startswith("secret-manager-controller: ")
    assert "16" in told
    assert "32" in told
    assert gains == [day.replicas.log.gains(shard) for shard in range(32)]
    day.end()
