"""Random schedules of faults: a bounded number here, thousands in `make chaos`."""

import json

import pytest

from lease_sharding.testing.__main__ import main
from lease_sharding.testing.schedule import (
    STEPS,
    ScheduleFailed,
    check_schedule,
    run_schedule,
    shrink,
    step_numbers,
)

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_nobody_acts_for_anothers_shard_and_the_group_recovers(seed):
    verdict = check_schedule(seed)
    assert verdict.effects > 0
    assert verdict.moves > 0


def test_a_seed_takes_the_same_steps_each_time():
    assert run_schedule(3) == run_schedule(3)
    assert run_schedule(3) != run_schedule(4)
    assert STEPS[0] <= len(step_numbers(3)) <= STEPS[1]


def test_some_of_the_steps_can_be_taken_alone(capsys):
    assert main(["3", "--steps=0,4"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["schedules"], summary["failed"]) == (1, 0)
    assert summary["effects"] > 0


@pytest.mark.parametrize("needed", [(), (5,), (2, 11), (0, 1, 15)])
def test_a_failing_schedule_is_shrunk_to_the_steps_that_matter(needed):
    def run(steps):
        if set(needed) <= set(steps):
            raise ScheduleFailed("it failed", steps)

    assert tuple(shrink(ScheduleFailed("it failed", list(range(16))), run).steps) == needed
