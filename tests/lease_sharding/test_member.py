"""One member, against the API server in memory and virtual time."""

import pytest

from lease_sharding.fence import OwnershipLost
from lease_sharding.leases import GROUP, SESSION, SHARD_COUNT, Names, is_sealed
from lease_sharding.member import Member
from lease_sharding.settings import Settings
from lease_sharding.testing import FakeLeaseClient, FakeLeaseServer, Network, VirtualLoop
from lease_sharding.testing.recorder import Recorder

SETTINGS = Settings(group="demo", shards=4)
NAMES = Names("demo", 4)


class Stage:
    """A virtual loop, a server, and members on it."""

    def __init__(self):
        self.loop = VirtualLoop()
        self.server = FakeLeaseServer(self.loop.time)
        self.handlers, self.networks, self.tasks = {}, {}, {}

    def member(self, name, settings=SETTINGS, handler=None):
        handler = self.handlers[name] = handler or Recorder()
        network = self.networks[name] = Network()
        client = FakeLeaseClient(
            self.server, group=settings.group, writer=name, request_timeout=settings.request_timeout, network=network
        )
        member = Member(client=client, settings=settings, member=name, handler=handler, clock=self.loop.time)
        self.tasks[name] = self.loop.create_task(member.run())
        return member

    def stop(self, member):
        return self.loop.run_until_complete(member.stop())


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.loop.end()


def test_alone_it_acquires_every_shard(stage):
    """Not at once: that there is no claim may mean that somebody deleted it, so it is waited out for one session."""
    member = stage.member("a")
    stage.loop.run_for(SETTINGS.session_duration + 2)
    assert frozenset(range(4)) == member.owned
    for shard, fence in stage.handlers["a"].fences.items():
        fence.check(SETTINGS.longest_call - 0.1)
        claim = stage.server.leases[NAMES.claim(shard)]
        assert ("a", member.session_id, 1) == (claim.holder, claim.annotations[SESSION], claim.transitions)
        assert is_sealed(claim)
    assert stage.server.leases[NAMES.config].annotations[SHARD_COUNT] == "4"
    assert {"demo"} == {lease.labels[GROUP] for lease in stage.server.leases.values()}


def test_a_graceful_stop_releases_every_shard_and_removes_the_session(stage):
    member = stage.member("a")
    stage.loop.run_for(SETTINGS.session_duration + 2)
    fences = dict(stage.handlers["a"].fences)
    assert stage.stop(member) == ()
    stage.loop.run_until_complete(stage.tasks["a"])
    assert frozenset() == member.owned
    assert {None} == {stage.server.leases[NAMES.claim(shard)].holder for shard in range(4)}
    assert NAMES.session("a") not in stage.server.leases
    for fence in fences.values():
        with pytest.raises(OwnershipLost):
            fence.check(0)
    told = stage.handlers["a"].told
    assert all(told.index(("drain", shard)) < told.index(("lost", shard)) for shard in range(4))


def test_the_next_member_takes_released_shards_without_waiting(stage):
    first = stage.member("a")
    stage.loop.run_for(SETTINGS.session_duration + 2)
    stage.stop(first)
    second = stage.member("b")
    stage.loop.run_for(1)
    assert frozenset(range(4)) == second.owned
    assert second.counters.handovers == 4
