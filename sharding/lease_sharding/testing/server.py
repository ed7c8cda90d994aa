"""The API server's Leases in memory, and the network between it and each member, with faults on demand."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from lease_sharding.errors import ApiError, Conflict
from lease_sharding.leases import GROUP, Lease
from lease_sharding.protocol import LeaseChange, LeaseList

T = TypeVar("T")

HISTORY = 500
"""Changes that a watch may begin before."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the server has carried out."""

    time: float
    writer: str
    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class _Step:
    """A Lease before and after a change; None where there was or is none."""

    before: Lease | None
    after: Lease | None
    revision: int

    def change(self, group: str) -> LeaseChange | None:
        """Return what a watch of a group is told: a Lease that loses its label is gone for it; None for nothing."""
        if self.after is not None and self.after.labels.get(GROUP) == group:
            return LeaseChange(self.after)
        if self.before is not None and self.before.labels.get(GROUP) == group:
            return LeaseChange(dataclasses.replace(self.before, resource_version=str(self.revision)), deleted=True)
        return None


class FakeLeaseServer:
    """The Leases of one namespace; every method is one atomic step, with the API server's rules.

    Attributes:
        leases: all of them by name.
        writes: what was carried out, in order.
        down: nothing arrives.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._revision = 100
        self._uids = 0
        self._watchers: list[tuple[str, Callable[[LeaseChange], None]]] = []
        self._history: list[_Step] = []
        self.leases: dict[str, Lease] = {}
        self.writes: list[Write] = []
        self.down = False

    def list(self, group: str) -> LeaseList:
        """Return the Leases that are labelled for a group."""
        found = [lease for _, lease in sorted(self.leases.items()) if lease.labels.get(GROUP) == group]
        return LeaseList(found, str(self._revision))

    def get(self, name: str) -> Lease | None:
        """Return one Lease."""
        return self.leases.get(name)

    def create(self, lease: Lease, *, writer: str = "admin") -> Lease:
        """Create a Lease."""
        if lease.name in self.leases:
            raise Conflict(409, f"{lease.name} exists")
        self._uids += 1
        return self._store(dataclasses.replace(lease, uid=f"uid-{self._uids}"), "create", writer)

    def update(self, lease: Lease, *, writer: str = "admin") -> Lease:
        """Replace a Lease that is as it was read; one that would change nothing is no write."""
        current = self._as_read(lease)
        if dataclasses.replace(lease, resource_version=current.resource_version) == current:
            return current
        return self._store(lease, "update", writer)

    def delete(self, lease: Lease, *, writer: str = "admin") -> None:
        """Delete a Lease that is as it was read; one that is gone is fine."""
        if lease.name in self.leases:
            gone = self._as_read(lease)
            del self.leases[lease.name]
            self._revision += 1
            self._tell(_Step(gone, None, self._revision))
            self.writes.append(Write(self._clock(), writer, "delete", lease.name))

    def edit(self, name: str, change: Callable[[Lease], Lease]) -> None:
        """Change a Lease by hand, whatever its version; does nothing if there is none."""
        if (lease := self.leases.get(name)) is not None:
            self._store(change(lease), "edit", "admin")

    def remove(self, name: str) -> None:
        """Delete a Lease by hand; does nothing if there is none."""
        if (lease := self.leases.get(name)) is not None:
            self.delete(lease)

    def subscribe(
        self, group: str, resource_version: str, watcher: Callable[[LeaseChange], None]
    ) -> Callable[[], None]:
        """Tell a watcher every change in a group after a version, and those to come; return what ends it."""
        for step in self._history:
            if step.revision > int(resource_version) and (change := step.change(group)) is not None:
                watcher(change)
        entry = (group, watcher)
        self._watchers.append(entry)
        return lambda: self._watchers.remove(entry)

    def _as_read(self, lease: Lease) -> Lease:
        current = self.leases.get(lease.name)
        if current is None or current.version != lease.version:
            raise Conflict(409 if current is not None else 404, f"{lease.name} has changed")
        return current

    def _store(self, lease: Lease, verb: str, writer: str) -> Lease:
        self._revision += 1
        stored = dataclasses.replace(lease, resource_version=str(self._revision))
        before = self.leases.get(lease.name)
        self.leases[lease.name] = stored
        self.writes.append(Write(self._clock(), writer, verb, lease.name))
        self._tell(_Step(before, stored, self._revision))
        return stored

    def _tell(self, step: _Step) -> None:
        self._history.append(step)
        del self._history[:-HISTORY]
        for group, watcher in list(self._watchers):
            if (change := step.change(group)) is not None:
                watcher(change)


@dataclass(slots=True)
class Network:
    """The way between one member and the API server; its faults can be changed at any time.

    Attributes:
        latency: seconds one way, from … to.
        slow: seconds more for the answers to writes.
        late: seconds more until writes arrive.
        error_rate: share of requests that are refused with a 500, carried out or not.
        lost_rate: share of requests the answer to which gets lost.
        cut: nothing passes, either way; requests that are under way may still arrive.
        blind: listings are refused, and the watch tells nothing; single Leases can be read and written.
        silent_watch: the watch tells nothing, and does not break.
        no_watch: there is no watch.
    """

    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - a simulation's.
    latency: tuple[float, float] = (0.002, 0.02)
    slow: float = 0.0
    late: float = 0.0
    error_rate: float = 0.0
    lost_rate: float = 0.0
    cut: bool = False
    blind: bool = False
    silent_watch: bool = False
    no_watch: bool = False

    def delay(self) -> float:
        """Return how long the next packet takes."""
        return self.chance.uniform(*self.latency)

    @property
    def spoilt(self) -> bool:
        """Whether there is any fault now."""
        rates = (self.slow, self.late, self.error_rate, self.lost_rate)
        return any((*rates, self.cut, self.blind, self.silent_watch, self.no_watch))

    def heal(self) -> None:
        """End all faults."""
        self.slow = self.late = self.error_rate = self.lost_rate = 0.0
        self.cut = self.blind = self.silent_watch = self.no_watch = False


class FakeLeaseClient:
    """A member's client of the fake server; it implements `LeaseClient`."""

    def __init__(
        self,
        server: FakeLeaseServer,
        *,
        group: str,
        writer: str,
        request_timeout: float,
        network: Network | None = None,
    ) -> None:
        """Make a client.

        Args:
            server: the API server.
            group: the label's value that Leases are listed by.
            writer: who is told to have written.
            request_timeout: seconds for a call.
            network: the way to the server; a good one by default.
        """
        self._server = server
        self._group = group
        self._writer = writer
        self._timeout = request_timeout
        self._network = network or Network()

    async def list(self) -> LeaseList:
        """List; see `LeaseClient.list`."""
        return await self._call(self._list)

    def _list(self) -> LeaseList:
        if self._network.blind:
            raise ApiError(429, "too many requests")
        return self._server.list(self._group)

    async def get(self, name: str) -> Lease | None:
        """Get; see `LeaseClient.get`."""
        return await self._call(lambda: self._server.get(name))

    async def create(self, lease: Lease) -> Lease:
        """Create; see `LeaseClient.create`."""
        return await self._call(lambda: self._server.create(lease, writer=self._writer), write=True)

    async def update(self, lease: Lease) -> Lease:
        """Update; see `LeaseClient.update`."""
        return await self._call(lambda: self._server.update(lease, writer=self._writer), write=True)

    async def delete(self, lease: Lease) -> None:
        """Delete; see `LeaseClient.delete`."""
        await self._call(lambda: self._server.delete(lease, writer=self._writer), write=True)

    def watch(self, resource_version: str) -> AsyncGenerator[LeaseChange, None] | None:
        """Watch; see `LeaseClient.watch`."""
        return None if self._network.no_watch else self._watch(resource_version)

    async def _watch(self, resource_version: str) -> AsyncGenerator[LeaseChange, None]:
        network, loop = self._network, asyncio.get_running_loop()
        arrived: asyncio.Queue[LeaseChange | None] = asyncio.Queue()
        order = [loop.time()]  # A stream keeps its order, whatever the packets' delays.

        def tell(change: LeaseChange) -> None:
            if self._server.down or network.cut:
                order.append(float("inf"))  # What is lost once breaks the stream.
            if order[-1] != float("inf") and not (network.silent_watch or network.blind):
                order.append(max(order[-1], loop.time() + network.delay()))
                loop.call_at(order[-1], arrived.put_nowait, change, context=contextvars.Context())

        if network.cut or self._server.down:
            raise ApiError(0, "no connection")
        unsubscribe = self._server.subscribe(self._group, resource_version, tell)
        try:
            while (change := await arrived.get()) is not None:
                yield change
        finally:
            unsubscribe()

    async def _call(self, work: Callable[[], T], *, write: bool = False) -> T:
        network, loop = self._network, asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            if self._server.down:
                return
            fate = network.chance.random()
            if fate < network.error_rate / 2:
                back(lambda: _fail(answer, ApiError(500, "internal error")))
                return
            try:
                result = work()
            except ApiError as error:
                refusal = error
                back(lambda: _fail(answer, refusal))
                return
            if fate < network.error_rate:
                back(lambda: _fail(answer, ApiError(504, "carried out, and told otherwise")))
            elif fate >= network.error_rate + network.lost_rate:
                back(lambda: None if answer.done() else answer.set_result(result))

        def back(deliver: Callable[[], None]) -> None:
            if not network.cut:
                delay = network.delay() + (network.slow if write else 0.0)
                loop.call_later(delay, deliver, context=contextvars.Context())

        if not network.cut:
            delay = network.delay() + (network.late if write else 0.0)
            loop.call_later(delay, arrive, context=contextvars.Context())
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError as error:
            raise ApiError(0, "no answer") from error


def _fail(answer: asyncio.Future[T], error: ApiError) -> None:
    if not answer.done():
        answer.set_exception(error)
