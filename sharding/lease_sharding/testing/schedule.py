"""Random schedules of faults, each made from a seed alone, and each step from the seed and its number.

So a step stays what it is when others are left out: a schedule that fails is shrunk to the steps that matter.
`python -m lease_sharding.testing SEED` replays one, `--steps 3,8` only some of its steps.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Mapping, Sequence
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
SETTLED = 0.7
"""Share of schedules that strike a group that works; the others strike while it forms."""
SHRINKING_RUNS = 80
"""How often a failing schedule is tried with fewer steps."""


class ScheduleFailed(Violation):
    """A schedule ended in a violation; the message tells how to replay it.

    Attributes:
        steps: the numbers of those that were taken.
    """

    def __init__(self, message: str, steps: Sequence[int]) -> None:
        super().__init__(message)
        self.steps = steps


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a schedule came to.

    Attributes:
        owned: seconds from the end of all faults until every shard was owned.
        balanced: seconds from then until the shares were even.
        moves: how often a shard was gained.
        effects: how many effects were begun.
        unowned: seconds for which a key was unowned at most, while somebody healthy was there.
    """

    seed: int | str
    owned: float
    balanced: float
    moves: int
    effects: int
    unowned: float


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

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.told: list[str] = []
        self._chance = random.Random(0)  # noqa: S311 - a simulation's.

    def step(self, number: int) -> None:
        """Do something at random, and let some time pass."""
        self._chance = random.Random(f"{self.simulation.seed}/step/{number}")  # noqa: S311 - a simulation's.
        actions = [
            (3, self.start),
            (1, self.mistake),
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
        self.simulation.advance(self._chance.choice(PAUSES) * self._chance.uniform(0.7, 1.3))

    def begin(self) -> None:
        """Start the first members."""
        self._chance = random.Random(f"{self.simulation.seed}/begin")  # noqa: S311 - a simulation's.
        for name in NAMES[: self._chance.randint(1, 4)]:
            self._tell(f"start {name}")
            self.simulation.start(name)
        self.simulation.advance(self._chance.choice(PAUSES) * self._chance.uniform(0.7, 1.3))
        if self._chance.random() < SETTLED:
            self.simulation.advance(2 * self.simulation.settings.session_duration)

    def end(self) -> None:
        """End all faults. Whoever was started with another shard count is stopped, and its group with it."""
        self._tell("everything is healed")
        simulation = self.simulation
        simulation.heal()
        for name in [name for name, process in simulation.processes.items() if process.settings != simulation.settings]:
            simulation.kill(name)
        simulation.restore_count()
        if not simulation.staying():
            self.start()

    def start(self) -> None:
        """Start a process."""
        if missing := [name for name in NAMES if name not in self.simulation.processes]:
            name = self._chance.choice(missing)
            self._tell(f"start {name}")
            self.simulation.start(name)

    def mistake(self) -> None:
        """Start a process with another shard count."""
        if missing := [name for name in NAMES if name not in self.simulation.processes]:
            name, right = self._chance.choice(missing), self.simulation.settings
            self._tell(f"start {name} with {2 * right.shards} shards")
            self.simulation.start(name, settings=dataclasses.replace(right, shards=2 * right.shards))

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
                    ("blind", True),
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
            self.simulation.edit(name, EDITS[told])

    def delete(self) -> None:
        """Delete one Lease by hand, or all."""
        every = self._chance.random() < 0.1
        for name in list(self.simulation.server.leases) if every else [self._lease()]:
            if name:
                self._tell(f"delete {name}")
                self.simulation.remove(name)

    def steal(self) -> None:
        """Write another member's name and session into a claim by hand."""
        simulation = self.simulation
        shard = self._chance.randrange(simulation.settings.shards)
        if (name := self._anyone()) and (session := simulation.server.get(simulation.names.session(name))):
            thief = session.annotations.get(SESSION, "none")
            self._tell(f"give shard {shard} to {name} by hand")
            simulation.edit(
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
        self.told.append(f"{self.simulation.loop.time():10.3f}  {step}")

    def _anyone(self) -> str | None:
        return self._chance.choice(sorted(self.simulation.processes)) if self.simulation.processes else None

    def _lease(self) -> str | None:
        return self._chance.choice(sorted(self.simulation.server.leases)) if self.simulation.server.leases else None


def step_numbers(seed: int | str) -> range:
    """Return the numbers of a schedule's steps."""
    return range(random.Random(f"{seed}/steps").randint(*STEPS))  # noqa: S311 - a simulation's.


def run_schedule(seed: int | str, *, steps: Collection[int] | None = None, settings: Settings | None = None) -> Verdict:
    """Run the schedule of a seed, then heal everything, and judge.

    Args:
        seed: whatever tells schedules apart.
        steps: the numbers of the steps to take; all by default.
        settings: of the group.

    Raises:
        ScheduleFailed: something happened that must not; names the seed and every step.
    """
    with Simulation(seed, settings=settings) as simulation:
        chaos = Chaos(simulation)
        taken: list[int] = []
        try:
            chaos.begin()
            for number in step_numbers(seed):
                if steps is None or number in steps:
                    taken.append(number)
                    chaos.step(number)
            chaos.end()
            owned, balanced = simulation.judge_rest()
        except Violation as violation:
            told = "\n".join(chaos.told)
            numbers = ",".join(map(str, taken))
            replay = f"python -m lease_sharding.testing {seed} --steps={numbers}"
            message = f"{violation}\nat {simulation.loop.time():.3f}, after\n{told}\nreplay: {replay}"
            raise ScheduleFailed(message, taken) from None
        referee = simulation.referee
        return Verdict(seed, owned, balanced, referee.moves, referee.effects, referee.longest_unowned)


def shrink(failure: ScheduleFailed, run: Callable[[Sequence[int]], object]) -> ScheduleFailed:
    """Return the failure with as few steps as can be found: chunks are left out, then single steps.

    Args:
        failure: of the whole schedule.
        run: runs the schedule with these steps; raises `ScheduleFailed` if it still fails.
    """
    runs, size = 0, max(len(failure.steps) // 2, 1)
    while size and runs < SHRINKING_RUNS:
        smaller = None
        for start in range(0, len(failure.steps), size):
            runs += 1
            try:
                run([*failure.steps[:start], *failure.steps[start + size :]])
            except ScheduleFailed as still:
                smaller = still
                break
        if smaller is None:
            size //= 2
        else:
            failure, size = smaller, min(size, max(len(smaller.steps) // 2, 1)) if smaller.steps else 0
    return failure


def check_schedule(seed: int | str, *, settings: Settings | None = None) -> Verdict:
    """Run the schedule of a seed; if it fails, shrink it first.

    Raises:
        ScheduleFailed: with the steps that matter.
    """
    try:
        return run_schedule(seed, settings=settings)
    except ScheduleFailed as failure:
        raise shrink(failure, lambda steps: run_schedule(seed, steps=steps, settings=settings)) from None
