"""Waiters see every change."""

import asyncio

from lease_sharding.changes import Changes


async def test_a_change_that_came_before_the_wait_is_not_missed():
    changes = Changes()
    seen = changes.count
    changes.note()
    await asyncio.wait_for(changes.after(seen), 5)


async def test_one_change_wakes_everybody():
    changes = Changes()
    waiting = [asyncio.create_task(changes.after(changes.count)) for _ in range(3)]
    await asyncio.sleep(0)
    changes.note()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_patience_ends():
    changes = Changes()
    await changes.after(changes.count, patience=0.001)
    assert changes.count == 0
