"""Random schedules of faults, each made from a seed alone.

`python -m lease_sharding.testing.schedule SEED` replays one.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lease_sharding.leases import ENDED, GROUP, SESSION, Lease
from lease_sharding.settings import Settings
from lease_sharding.testing.referee import Violation
from lease_sharding.testing.simulation import Simulation

NAMES = ("a", "b", "c", "d", "e")
"""Of possible members."""
STEPS = (6, 18)
"""How many faults a schedule has, from … to."""
PAUSES = (0.05, 0.3, 1.0, 2.5, 6.0, 11.0, 25.0)
"""Seconds between two steps: within one call, one renewal, one session, and longer."""
EVERYBODY_DIES = 0.1
"""Share of schedules that may end with nobody alive; others start somebody then."""


class ScheduleFailed(Violation):
    """A schedule ended in a violation; the message tells how to replay it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a schedule came to.

    Attributes:
        owned: seconds from the end of all faults until every shard was owned.
        balanced: seconds from then until the shares were even.
        moves: how often a shard was gained.
        effects: how many effects reached the store.
    """

    seed: int | str
    owned: float
    balanced: float
    moves: int
    effects: int


def _replaced(**values: object) -> Callable[[Lease], Lease]:
    return lambda lease: dataclasses.replace(lease, **values)  # type: ignore[arg-type]  # Each is a field's.


def _annotated(name: str, value: str | None) -> Callable[[Lease], Lease]:
    def change(lease: Lease) -> Lease:
        rest = {key: told for key, told in lease.annotations.items() if key != name}
        return dataclasses.replace(lease, annotations=rest if value is None else rest | {name: value})

    return change


def _unlabelled(lease: Lease) -> Lease:
    return dataclasses.replace(lease, labels={key: value for key, value in lease.labels.items() if key != GROUP})


EDITS: Mapping[str, Callable[[Lease], Lease]] = {
    "clear the holder of": _replaced(holder=None),
    "give to nobody known": _replaced(holder="nobody"),
    "remove the session id of": _annotated(SESSION, None),
    "write a wrong session id into": _annotated(SESSION, "wrong"),
    "remove the ended sessions of": _annotated(ENDED, None),
    "remove the label of": _unlabelled,
    "shorten": _replaced(duration=1),
    "lengthen": _replaced(duration=3600),
    "reset the epoch of": _replaced(transitions=0),
    "touch": _annotated("kubectl.kubernetes.io/touched", "yes"),
}
"""What a person may do to a Lease by hand; not what only the protocol itself writes, such as a proper release."""


class Chaos:
    """What can go wrong in a simulation; each action is told as text and carried out."""

    def __init__(self, simulation: Simulation, chance: random.Random) -> None:
        self.simulation = simulation
        self.steps: list[str] = []
        self._chance = chance

    def act(self) -> None:
        """Do something at random."""
        actions = [
            (3, self.start),
            (2, self.kill),
            (1, self.leave),
            (3, self.pause),
            (3, self.resume),
            (3, self.spoil_network),
            (3, self.heal_network),
            (1, self.outage),
            (2, self.recovery),
            (2, self.edit),
            (2, self.delete),
            (2, self.steal),
            (1, self.jump),
            (1, self.stick),
        ]
        self._chance.choices([action for _, action in actions], weights=[weight for weight, _ in actions])[0]()

    def pass_time(self) -> None:
        """Let some time pass."""
        seconds = self._chance.choice(PAUSES) * self._chance.uniform(0.7, 1.3)
        self._tell(f"wait {seconds:.3f} s")
        self.simulation.advance(seconds)

    def start(self) -> None:
        """Start a process."""
        if missing := [name for name in NAMES if name not in self.simulation.processes]:
            name = self._chance.choice(missing)
            self._tell(f"start {name}")
            self.simulation.start(name)

    def kill(self) -> None:
        """Kill a process."""
        if name := self._anyone():
            self._tell(f"kill {name}")
            self.simulation.kill(name)

    def leave(self) -> None:
        """Send SIGTERM."""
        if name := self._anyone():
            self._tell(f"stop {name} gracefully")
            self.simulation.leave(name)

    def pause(self) -> None:
        """Send SIGSTOP."""
        if name := self._anyone():
            self._tell(f"SIGSTOP {name}")
            self.simulation.pause(name)

    def resume(self) -> None:
        """Send SIGCONT."""
        if stopped := [name for name, process in self.simulation.processes.items() if process.actor.paused]:
            name = self._chance.choice(stopped)
            self._tell(f"SIGCONT {name}")
            self.simulation.resume(name)

    def spoil_network(self) -> None:
        """Let one member's way to the API server fail in some way."""
        if name := self._anyone():
            network = self.simulation.processes[name].network
            fault, value = self._chance.choice(
                [
                    ("cut", True),
                    ("silent_watch", True),
                    ("no_watch", True),
                    ("slow", 30.0),
                    ("slow", 1.5),
                    ("late", 30.0),
                    ("late", 1.5),
                    ("late", 5.0),
                    ("error_rate", 0.3),
                    ("lost_rate", 0.3),
                ]
            )
            self._tell(f"network of {name}: {fault} = {value}")
            setattr(network, fault, value)

    def heal_network(self) -> None:
        """Repair one member's network."""
        if name := self._anyone():
            self._tell(f"network of {name}: healed")
            self.simulation.processes[name].network.heal()

    def outage(self) -> None:
        """Take the API server away."""
        self._tell("API server down")
        self.simulation.server.down = True

    def recovery(self) -> None:
        """Bring the API server back."""
        self._tell("API server up")
        self.simulation.server.down = False

    def edit(self) -> None:
        """Edit a Lease by hand."""
        if name := self._lease():
            told = self._chance.choice(list(EDITS))
            self._tell(f"{told} {name}")
            self.simulation.server.edit(name, EDITS[told])

    def delete(self) -> None:
        """Delete one Lease by hand, or all."""
        every = self._chance.random() < 0.1
        for name in list(self.simulation.server.leases) if every else [self._lease()]:
            if name:
                self._tell(f"delete {name}")
                self.simulation.server.remove(name)

    def steal(self) -> None:
        """Write another member's name and session into a claim by hand."""
        simulation = self.simulation
        shard = self._chance.randrange(simulation.settings.shards)
        if (name := self._anyone()) and (session := simulation.server.get(simulation.names.session(name))):
            thief = session.annotations.get(SESSION, "none")
            self._tell(f"give shard {shard} to {name} by hand")
            simulation.server.edit(
                simulation.names.claim(shard),
                lambda lease: _annotated(SESSION, thief)(dataclasses.replace(lease, holder=name)),
            )

    def jump(self) -> None:
        """Set a machine's time of day an hour forward or back."""
        if name := self._anyone():
            seconds = self._chance.choice((-3600.0, 3600.0))
            self._tell(f"clock of {name} jumps {seconds:+g} s")
            self.simulation.processes[name].wall_jump += seconds

    def stick(self) -> None:
        """Let calls of a shard hang, as a thread in a dead connection does."""
        if name := self._anyone():
            shard = self._chance.randrange(self.simulation.settings.shards)
            self._tell(f"calls of {name} for shard {shard} hang")
            self.simulation.processes[name].worker.stuck.add(shard)

    def _tell(self, step: str) -> None:
        self.steps.append(f"{self.simulation.loop.time():10.3f}  {step}")

    def _anyone(self) -> str | None:
        return self._chance.choice(sorted(self.simulation.processes)) if self.simulation.processes else None

    def _lease(self) -> str | None:
        return self._chance.choice(sorted(self.simulation.server.leases)) if self.simulation.server.leases else None


def run_schedule(seed: int | str, *, settings: Settings | None = None) -> Verdict:
    """Run the schedule of a seed, then heal everything, and judge.

    Raises:
        ScheduleFailed: something happened that must not; names the seed and every step.
    """
    chance = random.Random(f"schedule/{seed}")  # noqa: S311 - a simulation's.
    with Simulation(seed, settings=settings) as simulation:
        chaos = Chaos(simulation, chance)
        try:
            for name in NAMES[: chance.randint(1, 4)]:
                chaos.steps.append(f"{simulation.loop.time():10.3f}  start {name}")
                simulation.start(name)
            chaos.pass_time()
            if chance.random() < 0.7:  # Most faults strike a group that works; some strike while it forms.
                simulation.advance(2 * simulation.settings.session_duration)
            for _ in range(chance.randint(*STEPS)):
                chaos.act()
                chaos.pass_time()
            if not simulation.staying():
                chaos.start()
            chaos.steps.append(f"{simulation.loop.time():10.3f}  everything is healed")
            simulation.heal()
            owned, balanced = simulation.judge_rest()
        except Violation as violation:
            steps = "\n".join(chaos.steps)
            replay = f"python -m lease_sharding.testing.schedule {seed}"
            raise ScheduleFailed(
                f"{violation}\nat {simulation.loop.time():.3f}, after\n{steps}\nreplay: {replay}"
            ) from None
        return Verdict(seed, owned, balanced, simulation.referee.moves, simulation.referee.effects)


def main(arguments: list[str] | None = None) -> int:
    """Run schedules from the command line; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int, help="of the first schedule")
    parser.add_argument("--count", type=int, default=1, help="how many, with the seeds that follow")
    parser.add_argument("--log", action="store_true", help="show what the members log")
    options = parser.parse_args(arguments)
    if options.log:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
    else:
        logging.getLogger("lease_sharding").setLevel(logging.CRITICAL)
    failed, slowest = 0, 0.0
    for seed in range(options.seed, options.seed + options.count):
        try:
            verdict = run_schedule(seed)
        except ScheduleFailed as failure:
            failed += 1
            sys.stdout.write(f"seed {seed} FAILED: {failure}\n")
        else:
            slowest = max(slowest, verdict.owned)
    sys.stdout.write(f"{options.count} schedules, {failed} failed; all shards owned {slowest:.1f} s after the faults\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
