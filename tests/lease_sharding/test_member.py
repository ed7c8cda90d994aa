"""One member, against the API server in memory and virtual time."""

import asyncio
import dataclasses

import pytest

from lease_sharding.errors import SettingsError, ShardCountMismatch
from lease_sharding.fence import OwnershipLost
from lease_sharding.leases import GROUP, SESSION, SHARD_COUNT, Names, is_sealed
from lease_sharding.member import Member
from lease_sharding.observe import SessionState
from lease_sharding.settings import Settings
from lease_sharding.testing import FakeLeaseClient, FakeLeaseServer, Network, VirtualLoop
from lease_sharding.testing.recorder import Recorder
from lease_sharding.view import View

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


def settle(stage, *names):
    members = [stage.member(name) for name in names]
    stage.loop.run_for(SETTINGS.session_duration + 8)
    return members


def test_it_tells_fences_by_shard_and_by_key_and_refuses_those_of_others(stage):
    a, b = settle(stage, "a", "b")
    key = next(f"key-{number}" for number in range(99) if a.shard_of(f"key-{number}") in a.owned)
    a.fence_for(key).check(1)
    assert a.fence_for(key) is a.fence(a.shard_of(key)) is stage.handlers["a"].fences[a.shard_of(key)]
    with pytest.raises(OwnershipLost, match=r"shard \d is not this member's"):
        b.fence_for(key)


def test_it_tells_the_group_as_it_sees_it(stage):
    a, b = settle(stage, "a", "b")
    for member in (a, b):
        snapshot = member.snapshot()
        assert [(row.name, row.state, row.share, row.owned) for row in snapshot.members] == [
            ("a", SessionState.LIVE, 2, 2),
            ("b", SessionState.LIVE, 2, 2),
        ]
        assert {row.shard for row in snapshot.shards if row.owner == "a"} == a.owned
        assert snapshot.unowned == ()
        assert member.overdue() == ()
    assert a.owned | b.owned == set(range(4))


def test_before_it_runs_it_owns_nothing_and_stops_at_once(stage):
    client = FakeLeaseClient(stage.server, group="demo", writer="x", request_timeout=2)
    member = Member(client=client, settings=SETTINGS, member="x", handler=Recorder(), clock=stage.loop.time)
    assert (member.owned, member.session_id, member.overdue()) == (frozenset(), None, ())
    with pytest.raises(OwnershipLost):
        member.fence(0)
    assert stage.stop(member) == ()


@pytest.mark.parametrize("name", ["", "Not a name", "a" * 64, "a/b"])
def test_a_name_that_no_lease_can_have_is_refused(stage, name):
    with pytest.raises(SettingsError, match="is not a name"):
        stage.member(name)


def test_another_shard_count_is_refused_with_what_would_work(stage):
    settle(stage, "a")
    stage.member("b", settings=Settings(group="demo", shards=8))
    stage.loop.run_for(5)
    assert isinstance(stage.tasks["b"].exception(), ShardCountMismatch)
    assert "Set the shard count to 4; or, to change it, stop every member" in str(stage.tasks["b"].exception())
    assert stage.handlers["b"].told == []


def test_a_handler_that_fails_ends_the_member_and_everything_it_holds(stage):
    class Failing(Recorder):
        def on_gained(self, shard, fence):
            super().on_gained(shard, fence)
            if shard == 2:
                raise ValueError("out of order")

    handler = Failing()
    stage.member("a", handler=handler)
    stage.loop.run_for(SETTINGS.session_duration + 5)
    with pytest.raises(ValueError, match="out of order"):
        stage.tasks["a"].result()
    assert handler.fences == {}


def test_a_stop_tells_which_shards_it_had_to_leave_to_lapse(stage):
    class Hanging(Recorder):
        async def drain(self, shard):
            await super().drain(shard)
            if shard == 1:
                await asyncio.Event().wait()

    member = stage.member("a", handler=Hanging())
    stage.loop.run_for(SETTINGS.session_duration + 2)
    assert stage.stop(member) == (1,)
    holders = [stage.server.leases[NAMES.claim(shard)].holder for shard in range(4)]
    assert holders == [None, "a", None, None]
    assert stage.handlers["a"].fences == {}


def test_an_api_server_that_refuses_everything_is_waited_for(stage):
    stage.server.down = True
    member = stage.member("a")
    stage.loop.run_for(60)
    assert member.owned == frozenset()
    stage.server.down = False
    stage.loop.run_for(SETTINGS.session_duration + 5)
    assert member.owned == frozenset(range(4))


@pytest.mark.parametrize("name", [NAMES.claim(1), NAMES.config])
def test_a_lease_that_lost_its_label_gets_it_back(stage, name):
    (member,) = settle(stage, "a")
    stage.server.edit(name, lambda lease: dataclasses.replace(lease, labels={}))
    stage.loop.run_for(3 * SETTINGS.session_duration)
    assert stage.server.leases[name].labels[GROUP] == "demo"
    assert member.owned == frozenset(range(4))


def test_a_config_without_its_count_gets_it_back(stage):
    settle(stage, "a")
    stage.server.edit(NAMES.config, lambda lease: dataclasses.replace(lease, annotations={}))
    stage.loop.run_for(10)
    assert stage.server.leases[NAMES.config].annotations[SHARD_COUNT] == "4"


def test_a_process_of_the_same_name_waits_for_the_other_ones_session(stage):
    """Nothing tells whether the other one still acts."""
    (first,) = settle(stage, "a")
    stage.tasks["a"].cancel()
    second = stage.member("a")
    stage.loop.run_for(SETTINGS.session_duration - SETTINGS.renew_interval - 1)
    assert (first.owned, second.owned) == (frozenset(), frozenset())
    stage.loop.run_for(SETTINGS.renew_interval + 4)
    assert second.owned == frozenset(range(4))


def test_many_changes_are_looked_at_together(stage, monkeypatch):
    """Else hundreds of claims that are made and written would each cost a look at hundreds of claims."""
    looks = []
    look = View.look
    monkeypatch.setattr(View, "look", lambda self, *arguments: (looks.append(1), look(self, *arguments))[1])
    member = stage.member("a", settings=Settings(group="demo", shards=256))
    stage.loop.run_for(SETTINGS.session_duration + 5)
    assert len(member.owned) == 256
    assert member.counters.writes > 512
    assert len(looks) < 256
