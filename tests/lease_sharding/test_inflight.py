"""Running calls are counted by shard, and waited for."""

import asyncio

import pytest

from lease_sharding.inflight import InFlight


async def test_idle_waits_for_the_last_call_of_its_shard():
    inflight = InFlight()
    with inflight.running(2):  # Another shard's is of no account.
        with inflight.running(1):
            waiting = asyncio.create_task(inflight.idle(1))
            with inflight.running(1):
                assert inflight.count(1) == 2
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
        assert (inflight.count(1), inflight.count(2)) == (0, 1)


async def test_a_call_that_fails_has_ended_too():
    inflight = InFlight()
    with pytest.raises(ValueError, match="no"), inflight.running(1):
        raise ValueError("no")
    await asyncio.wait_for(inflight.idle(1), 5)
