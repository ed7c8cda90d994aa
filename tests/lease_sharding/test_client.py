"""One contract for every client of Leases: the real API server's, and the fake's, which stands in for it elsewhere."""

import asyncio
import contextlib
import dataclasses
import itertools
import ssl
from datetime import UTC, datetime

import pytest

from lease_sharding.client import ApiServer, HttpLeaseClient, _change
from lease_sharding.errors import ApiError, Conflict
from lease_sharding.leases import GROUP, Lease, Names, opened
from lease_sharding.member import Member
from lease_sharding.settings import Settings
from lease_sharding.testing import FakeLeaseClient, FakeLeaseServer
from lease_sharding.testing.recorder import Recorder

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NUMBERS = itertools.count()


@pytest.fixture
def real_server(control_plane):
    tls = ssl.create_default_context(cafile=control_plane.ca_file)
    return ApiServer(control_plane.url, tls=tls, authorization=lambda: f"Bearer {control_plane.token()}")


@pytest.fixture
def namespace(control_plane):
    name = f"leases-{next(NUMBERS)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    status, answer = control_plane.request("POST", "/api/v1/namespaces", body=body)
    assert status == 201, answer
    return name


@pytest.fixture
def fake():
    @contextlib.asynccontextmanager
    async def make():
        server = FakeLeaseServer(lambda: 0.0)
        yield FakeLeaseClient(server, group="demo", writer="test", request_timeout=5)

    return make


@pytest.fixture
def real(real_server, namespace):
    return lambda: HttpLeaseClient(real_server, namespace=namespace, group="demo", request_timeout=5)


@pytest.fixture(params=["fake", "real"])
def make_client(request):
    # By name, so that the fake's tests need no real part.
    return request.getfixturevalue(request.param)


def session(member="a", session="s1"):
    name = Names("demo", 4).session(member)
    return opened(Lease(name=name), group="demo", member=member, session=session, ended=(), duration=10, now=NOW)


async def test_a_lease_is_read_as_it_was_written(make_client):
    async with make_client() as client:
        written = await client.create(session())
        assert written.uid
        assert written.resource_version
        assert session() == dataclasses.replace(written, uid="", resource_version="")
        assert written == await client.get(written.name)
        assert await client.get("demo-member-nobody") is None


async def test_the_listing_holds_what_is_labelled_and_a_version_to_watch_from(make_client):
    async with make_client() as client:
        labelled = await client.create(session("a"))
        await client.create(dataclasses.replace(session("b"), labels={GROUP: "other"}))
        await client.create(dataclasses.replace(session("c"), labels={}))
        listing = await client.list()
        assert [labelled] == list(listing.leases)
        assert int(listing.resource_version) >= int(labelled.resource_version)


async def test_only_the_version_that_was_read_can_be_replaced_or_deleted(make_client):
    async with make_client() as client:
        first = await client.create(session())
        with pytest.raises(Conflict):
            await client.create(session())
        second = await client.update(dataclasses.replace(first, transitions=7))
        assert first.uid == second.uid
        assert int(first.resource_version) < int(second.resource_version)
        with pytest.raises(Conflict):
            await client.update(dataclasses.replace(first, transitions=8))
        with pytest.raises(Conflict):
            await client.delete(first)
        assert second == await client.get(first.name)
        await client.delete(second)
        assert await client.get(first.name) is None
        await client.delete(second)  # Gone is fine.


async def test_a_lease_that_was_deleted_or_made_anew_is_not_replaced(make_client):
    async with make_client() as client:
        first = await client.create(session())
        await client.delete(first)
        with pytest.raises(Conflict):
            await client.update(first)
        again = await client.create(session())
        assert first.uid != again.uid
        with pytest.raises(Conflict):
            await client.update(dataclasses.replace(first, resource_version=again.resource_version))
        with pytest.raises(Conflict):
            await client.delete(dataclasses.replace(first, resource_version=again.resource_version))


async def test_a_write_that_changes_nothing_is_none(make_client):
    async with make_client() as client:
        first = await client.create(session())
        assert first == await client.update(first)


async def test_the_watch_tells_what_changes_after_the_listing(make_client):
    async with make_client() as client:
        before = await client.create(session("a"))
        listing = await client.list()
        stream = client.watch(listing.resource_version)
        async with contextlib.aclosing(stream), asyncio.timeout(20):
            changed = await client.update(dataclasses.replace(before, transitions=5))
            await client.create(dataclasses.replace(session("c"), labels={GROUP: "other"}))
            await client.delete(changed)
            told = [await anext(stream), await anext(stream)]
        assert [(changed, False), (changed.name, True)] == [
            (told[0].lease, told[0].deleted),
            (told[1].lease.name, told[1].deleted),
        ]
        assert int(told[1].lease.resource_version) > int(changed.resource_version)


async def test_a_lease_that_loses_its_label_is_gone_for_the_watch(make_client):
    """That is how the API server tells a watch with a selector that an object has left it."""
    async with make_client() as client:
        before = await client.create(session("a"))
        stream = client.watch((await client.list()).resource_version)
        async with contextlib.aclosing(stream), asyncio.timeout(20):
            unlabelled = await client.update(dataclasses.replace(before, labels={}))
            told = await anext(stream)
            relabelled = await client.update(dataclasses.replace(unlabelled, labels={GROUP: "demo"}))
            again = await anext(stream)
    assert (told.deleted, told.lease.name, told.lease.resource_version) == (
        True,
        before.name,
        unlabelled.resource_version,
    )
    assert (again.deleted, again.lease) == (False, relabelled)


async def test_a_refusal_and_silence_are_told_apart(real_server, namespace):
    stranger = dataclasses.replace(real_server, authorization=lambda: "Bearer wrong")
    async with HttpLeaseClient(stranger, namespace=namespace, group="demo", request_timeout=5) as client:
        with pytest.raises(ApiError) as refused:
            await client.list()
        with pytest.raises(ApiError) as unwatched:
            await anext(client.watch("1"))
    assert (refused.value.status, refused.value.unknown) == (401, False)
    assert unwatched.value.status == 401
    nobody = ApiServer("http://127.0.0.1:9")
    async with HttpLeaseClient(nobody, namespace=namespace, group="demo", request_timeout=5) as client:
        with pytest.raises(ApiError) as silent:
            await client.create(session())
    assert (silent.value.status, silent.value.unknown) == (0, True)


async def test_a_member_alone_owns_everything_and_lets_go_in_the_end(real):
    settings = Settings(
        group="demo", shards=4, session_duration=2, renew_interval=0.4, resync_interval=0.4, request_timeout=0.6,
        margin=0.4, take_grace=0.2,
    )  # fmt: skip
    handler, names = Recorder(), Names("demo", 4)
    async with real() as client, asyncio.timeout(60):
        member = Member(client=client, settings=settings, member="a", handler=handler)
        running = asyncio.create_task(member.run())
        while len(member.owned) < 4:  # noqa: ASYNC110 - the member tells nobody who waits outside.
            await asyncio.sleep(0.05)
        assert set(range(4)) == set(handler.fences)
        claims = [await client.get(names.claim(shard)) for shard in range(4)]
        assert [claim.holder for claim in claims] == ["a"] * 4
        assert await member.stop() == ()
        await running
        assert handler.fences == {}
        assert [(await client.get(names.claim(shard))).holder for shard in range(4)] == [None] * 4
        assert await client.get(names.session("a")) is None


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}, 410),
        ({"type": "BOOKMARK", "object": {}}, 0),
        ({"type": "ADDED", "object": {"kind": "Lease"}}, 0),
        ({}, 0),
    ],
)
def test_an_event_that_tells_no_lease_breaks_the_watch(event, status):
    with pytest.raises(ApiError) as broken:
        _change(event)
    assert broken.value.status == status
