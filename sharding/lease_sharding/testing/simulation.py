"""A whole group in virtual time: real members, a fake API server, faults, and a referee.

The same seed takes the same steps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

from lease_sharding.assign import shares
from lease_sharding.errors import LeaseShardingError
from lease_sharding.fence import Fence, OwnershipLost, ShardFence
from lease_sharding.inflight import InFlight
from lease_sharding.leases import SESSION, SHARD_COUNT, Lease, Names
from lease_sharding.member import Member
from lease_sharding.settings import Settings
from lease_sharding.testing.referee import Referee, Right, Violation
from lease_sharding.testing.server import FakeLeaseClient, FakeLeaseServer, Network
from lease_sharding.testing.virtual import START, Actor, VirtualLoop

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
KEYS_PER_SHARD = 2
"""Keys that the referee watches: as many as a group of twice the shards has shards."""
SAMPLE = 0.25
"""Seconds between two looks of the referee, beside those at every gain and effect."""
CALL_TIMEOUT = 3.0
"""Seconds that a call of a simulated worker takes at most; its margin at the fence."""
SKEW = 0.02
"""How much faster or slower a process's clock may run: 2 %, a hundred times as much as a real one.

Two such clocks tell ten seconds up to 0.4 s apart, which the margin of a second covers, and nothing else would.
"""


class Worker:
    """What a simulated process does with its shards: one call after the other, each behind the fence."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._inflight = InFlight()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._rights: dict[int, Right] = {}
        self._draining: set[int] = set()
        self.stuck: set[int] = set()

    def on_gained(self, shard: int, fence: Fence) -> None:
        """Begin to call."""
        assert isinstance(fence, ShardFence)
        self._draining.discard(shard)
        right = self._rights[shard] = self._process.gained(shard, fence)
        self._tasks[shard] = asyncio.create_task(self._work(shard, right))

    def on_lost(self, shard: int) -> None:
        """Begin no more calls; one that is running cannot be stopped, as in a thread."""
        self._process.referee.lost(self._rights.pop(shard))
        self._draining.add(shard)

    async def drain(self, shard: int) -> None:
        """Wait for the call that is running."""
        self._draining.add(shard)
        await self._inflight.idle(shard)

    async def _work(self, shard: int, right: Right) -> None:
        chance = self._process.chance
        while shard not in self._draining:
            with self._inflight.running(shard):
                try:
                    right.fence.check(CALL_TIMEOUT)
                except OwnershipLost:
                    return
                effect = self._process.referee.begin(right, margin=CALL_TIMEOUT)
                await asyncio.sleep(chance.uniform(0.01, CALL_TIMEOUT))
                while shard in self.stuck:  # noqa: ASYNC110 - a set that the simulation edits from outside.
                    await asyncio.sleep(0.5)
                effect.returned = True
            await asyncio.sleep(chance.uniform(0.5, 4.0))


class Process:
    """One simulated process with one member."""

    def __init__(self, simulation: Simulation, name: str, number: int, settings: Settings, rate: float | None) -> None:
        self.name = name
        self.id = f"{name}/{number}"
        self.referee = simulation.referee
        self.chance = random.Random(f"{simulation.seed}/{self.id}")  # noqa: S311 - a simulation's.
        self.network = Network(chance=random.Random(f"{simulation.seed}/{self.id}/network"))  # noqa: S311 - likewise.
        self.actor = Actor(simulation.loop)
        self.worker = Worker(self)
        self.settings = settings
        self.error: BaseException | None = None
        self.wall_jump = 0.0
        self.healthy_since = simulation.loop.time()
        self._simulation = simulation
        self._rate = rate or 1 + self.chance.uniform(-SKEW, SKEW)
        self._offset = self.chance.uniform(0, 1e6)
        self._ids = 0
        self.member = Member(
            client=FakeLeaseClient(
                simulation.server,
                group=settings.group,
                writer=self.id,
                request_timeout=settings.request_timeout,
                network=self.network,
            ),
            settings=settings,
            member=name,
            handler=self.worker,
            clock=self.clock,
            now=self.now,
            new_id=self._new_id,
        )
        self.task = self.actor.start(self._run())

    def clock(self) -> float:
        """Return the process's own monotonic time; it runs on while the process is stopped."""
        return self._offset + (self._simulation.loop.time() - START) * self._rate

    def now(self) -> datetime:
        """Return the process's time of day, which may jump."""
        return EPOCH + timedelta(seconds=self._simulation.loop.time() + self.wall_jump)

    def gained(self, shard: int, fence: ShardFence) -> Right:
        """Tell the referee of a gain."""
        return self.referee.gained(self.id, shard, of=self.settings.shards, fence=fence)

    @property
    def healthy(self) -> bool:
        """Whether nothing keeps it from working now."""
        return not (self.actor.paused or self.worker.stuck or self.network.spoilt or self.error)

    async def _run(self) -> None:
        try:
            await self.member.run()
        except LeaseShardingError as error:
            self.error = error

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}-{self.id.rpartition('/')[2]}-{self._ids}"


class Simulation:
    """A group under test. Everything is done from outside, between two steps of virtual time.

    Attributes:
        processes: those that live, by member name; a stopped one (SIGSTOP) among them.
    """

    def __init__(self, seed: int | str, *, settings: Settings | None = None) -> None:
        self.seed = seed
        self.settings = settings or Settings(group="demo", shards=8, drain_timeout=8)
        self.names = Names(self.settings.group, self.settings.shards)
        self.loop = VirtualLoop()
        self.server = FakeLeaseServer(self.loop.time)
        self.referee = Referee(KEYS_PER_SHARD * self.settings.shards, self.loop.time)
        self.processes: dict[str, Process] = {}
        self._started = 0
        self._leaving: dict[str, asyncio.Task[object]] = {}
        self._disturbed = self.loop.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.end()

    # What happens to processes.

    def start(self, name: str, *, settings: Settings | None = None, rate: float | None = None) -> None:
        """Start a process, if none of that name lives; `rate` is how fast its clock runs, at random by default."""
        if name not in self.processes:
            self._started += 1
            self.processes[name] = Process(self, name, self._started, settings or self.settings, rate)

    def kill(self, name: str) -> None:
        """Kill a process (SIGKILL)."""
        process = self.processes.pop(name)
        self._leaving.pop(name, None)
        process.actor.kill()
        self.referee.forget(process.id)

    def pause(self, name: str) -> None:
        """Stop a process (SIGSTOP)."""
        self.processes[name].actor.pause()

    def resume(self, name: str) -> None:
        """Let a stopped process go on (SIGCONT)."""
        self.processes[name].actor.resume()

    def leave(self, name: str) -> None:
        """Ask a process to end (SIGTERM); it is gone when it has."""
        process = self.processes[name]
        if name not in self._leaving:
            self._leaving[name] = process.actor.start(process.member.stop())

    # What happens to Leases by hand: it may cost time, and it may cost the memory of epochs.

    def edit(self, name: str, change: Callable[[Lease], Lease]) -> None:
        """Change a Lease by hand."""
        self._spoil(name)
        self.server.edit(name, change)

    def remove(self, name: str) -> None:
        """Delete a Lease by hand."""
        self._spoil(name)
        self.server.remove(name)

    def _spoil(self, name: str) -> None:
        self._disturbed = self.loop.time()
        if (shard := self.names.shard_of(name)) is not None:
            self.referee.spoil_epochs(shard, of=self.settings.shards)

    def restore_count(self) -> None:
        """Make the shard count that of the simulation again, as an administrator does after a mistake."""
        config = self.server.get(self.names.config)
        if config is not None and config.annotations.get(SHARD_COUNT) != str(self.settings.shards):
            for name in list(self.processes):
                self.kill(name)
            for name in list(self.server.leases):
                self.remove(name)

    # Time, and judgement.

    @property
    def bound(self) -> float:
        """Seconds for which a key may be unowned while some member is healthy and nobody edits Leases.

        What is unsure is waited out for one session, and so is, before that, a member that died just now; whom a shard
        is meant for may let its grace pass, and work that was drained may take its time.
        """
        settings = self.settings
        return 2 * settings.session_duration + 2 * settings.take_grace + settings.drain_timeout

    def advance(self, seconds: float) -> None:
        """Let time pass under the referee's eyes.

        Raises:
            Violation: something happened that must not.
        """
        end = self.loop.time() + seconds
        while (left := end - self.loop.time()) > 1e-9:
            self.loop.run_for(min(SAMPLE, left))
            self._bury()
            self.referee.owners()
            self._judge_unowned()
            if self.referee.violation is not None:
                raise self.referee.violation

    def advance_until(self, condition: Callable[[], bool], *, within: float, what: str) -> float:
        """Let time pass until a condition holds; return how long it took.

        Raises:
            Violation: it does not hold in time, or something happened that must not.
        """
        began = self.loop.time()
        while not condition():
            if self.loop.time() - began > within:
                raise Violation(f"{what} after {within:g} s: {self.describe()}")
            self.advance(SAMPLE)
        return self.loop.time() - began

    def heal(self) -> None:
        """End all faults; processes that were killed stay dead, those that are leaving leave."""
        self.server.down = False
        for process in self.processes.values():
            process.network.heal()
            process.worker.stuck.clear()
            if process.actor.paused:
                process.actor.resume()

    def is_balanced(self) -> bool:
        """Tell whether each member owns its share, and everything is owned."""
        owners = list(self.referee.owners().values())
        wanted = shares(self.staying(), self.settings.shards) if self.staying() else {}
        return all(
            owners.count(self.processes[name].id) == KEYS_PER_SHARD * count for name, count in wanted.items()
        ) and len(owners) == (KEYS_PER_SHARD * self.settings.shards if wanted else 0)

    def staying(self) -> list[str]:
        """Return the members that live and are not leaving."""
        return [name for name in self.processes if name not in self._leaving]

    def judge_rest(self) -> tuple[float, float]:
        """Check that a healthy group comes to rest; return after how many seconds all was owned, and balanced.

        Raises:
            Violation: it does not.
        """
        began = owned = self.loop.time()
        while self.loop.time() < began + self.bound:
            self.advance(SAMPLE)
            owned = self.loop.time() if self.referee.unowned() else owned
        if self.referee.unowned():
            raise Violation(f"shards are unowned {self.bound:g} s after all faults: {self.describe()}")
        owned -= began
        balanced = self.advance_until(self.is_balanced, within=12 * self.bound, what="shares are uneven")
        self.advance(2 * self.settings.resync_interval)
        moves, writes, seconds = self.referee.moves, len(self.server.writes), 10 * self.settings.renew_interval
        self.advance(seconds)
        if self.referee.moves != moves or not self.is_balanced():
            raise Violation(f"shards move at rest: {self.describe()}")
        self._judge_writes(self.server.writes[writes:], seconds)
        return owned, balanced

    def _judge_unowned(self) -> None:
        """Check that nothing is unowned for too long, as far as this can be expected of anybody."""
        now = self.loop.time()
        if self.server.down:
            self._disturbed = now
        for name, process in self.processes.items():
            if process.worker.stuck:  # A call that does not return keeps its shard, and nobody else may have it.
                self._disturbed = now
            if name in self._leaving or not process.healthy or process.settings is not self.settings:
                process.healthy_since = now
        healthy_since = min((process.healthy_since for process in self.processes.values()), default=now)
        self.referee.judge_unowned(since=max(healthy_since, self._disturbed), bound=self.bound)

    def _judge_writes(self, writes: Sequence[object], seconds: float) -> None:
        """Check that members write renewals, and nothing else but the deletion of Leases that nobody needs."""
        expected = len(self.processes) * seconds / self.settings.renew_interval
        spare = len(self.processes) + len(self.server.leases)
        if len(writes) > expected + spare:
            raise Violation(f"{len(writes)} writes in {seconds:g} s at rest, {expected:g} expected")

    def describe(self) -> str:
        """Return who owns what, and what the Leases say, for a verdict."""
        owners = self.referee.owners()
        leases = [
            f"{lease.name}: {lease.holder or '-'} {lease.annotations.get(SESSION, '-')} epoch {lease.transitions}"
            for _, lease in sorted(self.server.leases.items())
        ]
        members = [
            f"{process.id}{' leaving' if name in self._leaving else ''} {process.member.session_id}"
            f" {sorted(process.member.owned)} {process.error or ''}"
            for name, process in self.processes.items()
        ]
        return "\n  ".join([f"owners {dict(owners)}", *members, *leases])

    def _bury(self) -> None:
        """Remove processes that have ended."""
        for name, process in list(self.processes.items()):
            if process.task.done():
                if not process.task.cancelled() and (error := process.task.exception()) is not None:
                    raise error
                self.kill(name)
