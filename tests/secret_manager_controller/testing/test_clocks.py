"""A wall clock that jumps, in a real process."""

import os
import subprocess
import sys
import time

import pytest

from secret_manager_controller.testing.clocks import ShiftedClock, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")

TOLD = """
import datetime, sys, time
for _ in sys.stdin:
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    print(time.time(), now, time.monotonic(), flush=True)
"""


@pytest.mark.parametrize("hour", [3600, -3600])
def test_the_wall_clock_of_a_running_process_jumps_and_no_other(tmp_path, hour):
    with (
        ShiftedClock(tmp_path) as clock,
        subprocess.Popen(
            [sys.executable, "-c", TOLD],
            env={"PATH": os.defpath, **clock.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):

        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            wall, date, monotonic = map(float, process.stdout.readline().split())
            return [wall - time.time(), date - time.time(), monotonic - time.monotonic()]

        assert ask() == pytest.approx([0, 0, 0], abs=60)
        clock.shift(hour)
        assert ask() == pytest.approx([hour, hour, 0], abs=60)
        process.stdin.close()
