"""Runs schedules from the command line: `python -m lease_sharding.testing SEED --schedules 1000`."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor

from lease_sharding.testing.schedule import ScheduleFailed, Verdict, check_schedule, run_schedule


def _judge(seed: int, *, steps: Collection[int] | None) -> Verdict | str:
    """Return the verdict, or how the schedule failed: exceptions with arguments of their own do not cross processes."""
    try:
        return check_schedule(seed) if steps is None else run_schedule(seed, steps=steps)
    except ScheduleFailed as failure:
        return str(failure)


def _judgements(seeds: range, *, steps: Collection[int] | None, jobs: int) -> Iterator[Verdict | str]:
    judge = functools.partial(_judge, steps=steps)
    if min(jobs, len(seeds)) == 1:
        yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=_be_quiet) as pool:
        yield from pool.map(judge, seeds, chunksize=4)


def _be_quiet() -> None:
    logging.getLogger("lease_sharding").setLevel(logging.CRITICAL)


def main(arguments: list[str] | None = None) -> int:
    """Run schedules, print how those failed that did, and a line of JSON; exit code 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m lease_sharding.testing", description=__doc__)
    parser.add_argument("seed", type=int, help="of the first schedule")
    parser.add_argument("--schedules", type=int, default=1, help="how many, with the seeds that follow")
    parser.add_argument(
        "--steps", help="numbers of the only steps to take, separated by commas; nothing is shrunk then"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time; one a CPU by default"
    )
    parser.add_argument("--log", action="store_true", help="show what the members log, of one schedule after the other")
    options = parser.parse_args(arguments)
    if options.log:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
    else:
        _be_quiet()
    steps = None if options.steps is None else {int(number) for number in options.steps.split(",") if number}
    seeds = range(options.seed, options.seed + options.schedules)
    verdicts: list[Verdict] = []
    for seed, judged in zip(
        seeds, _judgements(seeds, steps=steps, jobs=1 if options.log else options.jobs), strict=True
    ):
        if isinstance(judged, Verdict):
            verdicts.append(judged)
        else:
            sys.stdout.write(f"seed {seed} FAILED: {judged}\n")
            sys.stdout.flush()
    summary = {
        "seed": options.seed,
        "schedules": options.schedules,
        "failed": options.schedules - len(verdicts),
        "effects": sum(verdict.effects for verdict in verdicts),
        "moves": sum(verdict.moves for verdict in verdicts),
        "longest_unowned_s": round(max((verdict.unowned for verdict in verdicts), default=0), 1),
        "owned_after_s": round(max((verdict.owned for verdict in verdicts), default=0), 1),
        "balanced_after_s": round(max((verdict.balanced for verdict in verdicts), default=0), 1),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
