"""Builds are shared while they run and for a moment after; nothing of them stays."""

import asyncio

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.plaintext import Entry, Plaintext, ServiceEntries
from secret_manager_controller.model.secret import SecretValue, SourceHash
from secret_manager_controller.render.builds import KEEP_SECONDS, MAX_KEPT_BYTES, BuildCache


def plaintext(size=1):
    entry = Entry("key", SecretValue(b"x" * size), SourceHash("hash"), "path")
    return Plaintext((ServiceEntries(None, (entry,)),))


class Bench:
    """A cache whose timers are run by hand, and a build that is counted and let go by hand."""

    def __init__(self):
        self.timers = []
        self.cache = BuildCache(lambda seconds, call: self.timers.append((seconds, call)))
        self.begun = 0
        self.go = asyncio.Event()
        self.outcome = plaintext()

    async def build(self):
        self.begun += 1
        await self.go.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def get(self, key=b"a"):
        return asyncio.ensure_future(self.cache.get(key, self.build))


@pytest.fixture
async def bench():
    return Bench()


async def test_who_asks_meanwhile_and_soon_after_shares_one_build(bench):
    first, second, other = bench.get(), bench.get(), bench.get(b"b")
    await asyncio.sleep(0)
    bench.go.set()
    assert await first is await second
    assert await other is bench.outcome
    assert await bench.get() is bench.outcome
    assert bench.begun == 2


async def test_a_timer_drops_what_is_kept(bench):
    bench.go.set()
    await bench.get()
    ((seconds, drop),) = bench.timers
    assert (seconds, len(bench.cache)) == (KEEP_SECONDS, 1)
    drop()
    assert len(bench.cache) == 0
    await bench.get()
    assert bench.begun == 2
    drop()  # An old timer does not drop what is newer.
    assert len(bench.cache) == 1


async def test_a_failure_is_told_to_all_and_not_kept(bench):
    bench.outcome = PermanentError(Reason.BUILD_FAILED, "failed")
    waiting = [bench.get(), bench.get()]
    bench.go.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [bench.outcome] * 2
    await asyncio.sleep(0)
    assert (len(bench.cache), bench.begun, bench.timers) == (0, 1, [])


async def test_one_who_is_cancelled_takes_nothing_from_the_others(bench):
    first, second = bench.get(), bench.get()
    await asyncio.sleep(0)
    first.cancel()
    bench.go.set()
    assert await second is bench.outcome


async def test_what_is_too_large_is_not_kept(bench):
    bench.go.set()
    bench.outcome = plaintext(MAX_KEPT_BYTES - 10)
    await bench.get()
    bench.outcome = plaintext(11)
    await bench.get(b"b")
    assert len(bench.cache) == 1
    bench.cache.clear()
    assert len(bench.cache) == 0
