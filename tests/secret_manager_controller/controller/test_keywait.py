"""Who cannot decrypt is reconciled when the keys change, and nobody else is."""

import asyncio

import pyrage
import pytest

from secret_manager_controller.controller import keywait
from secret_manager_controller.controller.keywait import KeyWaiters
from secret_manager_controller.decrypt import KeyRing
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.request import Progress

NAMESPACES = ("team-a", "system")
FAILED = PermanentError(Reason.DECRYPTION_FAILED, "failed")


def ring():
    return KeyRing.parse([str(pyrage.x25519.Identity.generate()).encode()])


class Bench:
    """Keys that are set by hand, and the queue's keys."""

    def __init__(self):
        self.ring = ring()
        self.error = None
        self.looks = []
        self.queued = []
        self.looked, self.woke = asyncio.Event(), asyncio.Event()
        self.waiters = KeyWaiters(self, self.queue)

    def queue(self, key):
        self.queued.append(key)
        self.woke.set()

    async def find(self, namespaces):
        self.looks.append(namespaces)
        self.looked.set()
        if self.error:
            raise self.error
        return self.ring

    def fail(self, key, problem=FAILED, *, keys=True):
        progress = Progress(keys=self.ring if keys else None, key_namespaces=NAMESPACES)
        self.waiters.note(key, problem, progress)


@pytest.fixture
def bench():
    return Bench()


async def test_nothing_happens_while_the_keys_stay_and_all_are_queued_when_they_change(bench):
    bench.fail("team-a/one")
    bench.fail("team-a/two", RetryableError(Reason.KEY_UNAVAILABLE, "no key"))
    await bench.waiters.look()
    assert (bench.queued, bench.looks) == ([], [NAMESPACES])
    bench.ring = ring()
    await bench.waiters.look()
    assert bench.queued == ["team-a/one", "team-a/two"]
    await bench.waiters.look()
    assert len(bench.queued) == 2
    assert len(bench.waiters) == 0


async def test_who_could_not_read_a_key_is_queued_when_that_changes(bench):
    bench.error = PermanentError(Reason.KEY_UNAVAILABLE, "is no key")
    bench.fail("team-a/one", bench.error, keys=False)
    await bench.waiters.look()
    assert bench.queued == []
    bench.error = None
    await bench.waiters.look()
    assert bench.queued == ["team-a/one"]


@pytest.mark.parametrize(
    "end",
    [
        lambda bench: bench.fail("team-a/one", None),
        lambda bench: bench.fail("team-a/one", PermanentError(Reason.CONFLICT, "x")),
        lambda bench: bench.waiters.note("team-a/one", FAILED, Progress()),
        lambda bench: bench.waiters.forget("team-a/one"),
    ],
    ids=["mended", "other-problem", "no-keys-asked", "gone"],
)
async def test_who_does_not_wait_any_more_is_forgotten(bench, end):
    bench.fail("team-a/one")
    end(bench)
    bench.ring = ring()
    await bench.waiters.look()
    assert (bench.queued, len(bench.waiters)) == ([], 0)


async def test_it_looks_again_and_again(bench, monkeypatch):
    monkeypatch.setattr(keywait, "LOOK_INTERVAL", 0)
    bench.fail("team-a/one")
    task = asyncio.create_task(bench.waiters.run())
    await bench.looked.wait()
    bench.ring = ring()
    await bench.woke.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.queued == ["team-a/one"]
