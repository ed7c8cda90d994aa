"""The work queue, in virtual time."""

import asyncio
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from secret_manager_controller.controller.queue import BACKOFF_CAP, QueueClosed, Widths, WorkQueue, backoff
from secret_manager_controller.testing.clocks import ManualClock


async def taken(queue):
    """Take what can be had now, without waiting."""
    keys = []
    while True:
        task = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return keys
        keys.append(task.result())


def make(clock=None, spread=0.0):
    return WorkQueue(clock=clock or ManualClock(), spread=lambda: spread)


async def test_a_burst_of_events_is_one_reconcile():
    queue = make()
    for _ in range(50):
        queue.add("a")
    queue.add("b")
    assert await taken(queue) == ["a", "b"]


async def test_a_key_added_while_it_is_worked_on_comes_once_more_after_done():
    queue = make()
    queue.add("a")
    assert await taken(queue) == ["a"]
    queue.add("a")
    queue.add("a")
    assert await taken(queue) == []
    queue.done("a")
    assert await taken(queue) == ["a"]
    queue.done("a")
    assert await taken(queue) == []


async def test_a_delayed_key_comes_when_it_is_due_and_the_last_delay_counts():
    clock = ManualClock()
    queue = make(clock)
    queue.add_after("a", 10)
    queue.add_after("a", 30)
    clock.now = 29
    assert await taken(queue) == []
    clock.now = 30
    assert await taken(queue) == ["a"]


async def test_adding_a_key_voids_its_delay():
    clock = ManualClock()
    queue = make(clock)
    queue.add_after("a", 10)
    queue.add("a")
    assert await taken(queue) == ["a"]
    queue.done("a")
    clock.now = 11
    assert await taken(queue) == []


async def test_a_look_is_new_enough_that_began_when_somebody_asked_last():
    clock = ManualClock()
    queue = make(clock)
    for clock.now in (1, 2):  # It waits all the while: what was seen at 1 does not show what was done at 2.
        queue.add("a")
    clock.now = 9
    await taken(queue)
    assert queue.new_enough("a", slack=5) == 2


async def test_a_look_may_be_older_where_only_the_interval_is_over():
    clock = ManualClock()
    queue = make(clock)
    queue.add_after("a", 10)
    clock.now = 12
    await taken(queue)
    assert queue.new_enough("a", slack=5) == 7


async def test_a_request_that_comes_while_a_key_is_worked_on_counts_for_the_next_time():
    clock = ManualClock()
    queue = make(clock)
    queue.add_after("a", 1)
    clock.now = 2
    await taken(queue)
    queue.add("a")
    assert queue.new_enough("a", slack=5) == -3
    clock.now = 4
    queue.done("a")
    await taken(queue)
    assert queue.new_enough("a", slack=5) == 4


async def test_after_a_failure_an_old_look_will_not_do():
    """What was seen before it may be what made it fail."""
    clock = ManualClock()
    queue = make(clock)
    queue.add("a")
    await taken(queue)
    delay = queue.retry("a")
    queue.done("a")
    clock.now = delay
    await taken(queue)
    assert queue.new_enough("a", slack=5) == delay
    queue.succeeded("a")
    queue.add_after("a", 10)
    queue.done("a")
    clock.now = 20
    await taken(queue)
    assert queue.new_enough("a", slack=5) == 15


async def test_failures_back_off_until_a_success():
    queue = make()
    assert [queue.retry("a") for _ in range(4)] == [1, 2, 4, 8]
    queue.succeeded("a")
    assert queue.retry("a") == 1
    assert queue.retry("a", at_least=60) == 60


def test_the_backoff_is_capped_and_jittered():
    assert backoff(10_000, spread=0) == BACKOFF_CAP
    assert (backoff(1, spread=-1), backoff(1, spread=1)) == (0.8, 1.2)


async def test_a_discarded_key_is_forgotten():
    clock = ManualClock()
    queue = make(clock)
    queue.add("a")
    queue.add_after("b", 1)
    queue.discard("a")
    queue.discard("b")
    clock.now = 2
    assert await taken(queue) == []


async def test_a_waiting_worker_wakes_for_a_new_key_and_for_the_end():
    loop = asyncio.get_running_loop()
    queue = WorkQueue(clock=loop.time)
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("a", 0.001)
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert [task.result() for task in done] == ["a"]
    queue.close()
    (rest,) = {first, second} - done
    with pytest.raises(QueueClosed):
        await asyncio.wait_for(rest, 5)


KEYS = st.sampled_from(["a", "b", "c"])


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens: no key is lost, none is handed out twice at a time."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.Runner()
        self.clock = ManualClock()
        self.queue = make(self.clock)
        self.working = set()
        self.wanted = set()
        self.due = {}

    def teardown(self):
        self.loop.close()

    @rule(key=KEYS)
    def add(self, key):
        self.queue.add(key)
        self.wanted.add(key)
        self.due.pop(key, None)

    @rule(key=KEYS, delay=st.sampled_from([1, 5]))
    def add_after(self, key, delay):
        self.queue.add_after(key, delay)
        self.due[key] = self.clock.now + delay

    @rule(key=KEYS)
    def discard(self, key):
        self.queue.discard(key)
        self.wanted.discard(key)
        self.due.pop(key, None)

    @rule(seconds=st.sampled_from([1, 3]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def take(self):
        for key in [key for key, due in self.due.items() if due <= self.clock.now]:
            self.wanted.add(key)
            del self.due[key]
        got = self.loop.run(taken(self.queue))
        assert Counter(got) == Counter(self.wanted - self.working)
        self.wanted -= set(got)
        self.working |= set(got)
        self.due = {key: due for key, due in self.due.items() if key not in got}

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data):
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @invariant()
    def nothing_waits_twice(self):
        assert len(self.queue) <= 3


TestQueueMachine = QueueMachine.TestCase


async def test_an_account_that_takes_long_leaves_workers_to_the_others():
    lanes = {"a/up": "up"} | {f"a/{number}": "down" for number in range(5)}
    queue = WorkQueue(clock=ManualClock(), lane_of=lanes.get, widths=Widths(lane=2))
    for key in [f"a/{number}" for number in range(5)] + ["a/up"]:
        queue.add(key)
    assert {await queue.get() for _ in range(3)} == {"a/0", "a/1", "a/up"}
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("a/0")
    assert await waiting == "a/2"


async def test_a_kind_of_store_that_does_not_answer_leaves_workers_to_the_others_whatever_the_logins():
    lanes = {f"team-{number}/app": f"aws/eu-west-1/team-{number}/login" for number in range(9)} | {"z/app": "gcp/p/"}
    queue = WorkQueue(clock=ManualClock(), lane_of=lanes.get, widths=Widths(lane=2, kind=3))
    for key in lanes:
        queue.add(key)
    assert {await queue.get() for _ in range(4)} == {"team-0/app", "team-1/app", "team-2/app", "z/app"}
    queue.done("z/app")
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("team-1/app")
    assert await waiting == "team-3/app"


async def test_keys_whose_account_is_not_known_are_all_handed_out():
    queue = WorkQueue(clock=ManualClock(), widths=Widths(lane=1, kind=1))
    for number in range(3):
        queue.add(f"a/{number}")
    assert len([await queue.get() for _ in range(3)]) == 3
