"""A budget lets through what the quota allows, in order, and says when it does not."""

import asyncio
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.errors import Reason
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.budget import Budget, Budgets, BudgetSpent


class Time:
    """A clock, and a sleep that moves it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(asyncio, "sleep", time.sleep)
    return time


def budget(time, *, per_minute=60.0, burst=3.0, members=lambda: 1):
    return Budget("reads", per_minute=per_minute, burst=burst, members=members, clock=time)


async def test_a_burst_goes_at_once_and_then_one_a_second(time):
    tokens = budget(time)
    passed = []
    for _ in range(6):
        await tokens.take(within=10.0)
        passed.append(time.now - 100.0)
    assert passed == pytest.approx([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])


async def test_a_wait_that_is_too_long_is_told_and_takes_nothing(time):
    tokens = budget(time, burst=1.0)
    await tokens.take(within=0.0)
    for _ in range(3):
        with pytest.raises(BudgetSpent, match="budget of reads is spent for the next 1 s") as raised:
            await tokens.take(within=0.5)
        assert raised.value.reason is Reason.RATE_LIMITED
        assert raised.value.retry_after == pytest.approx(1.0)
    time.now += 1.0
    await tokens.take(within=0.0)


async def test_a_budget_that_was_exceeded_rests(time):
    tokens = budget(time)
    tokens.slow_down(30.0)
    with pytest.raises(BudgetSpent):
        await tokens.take(within=29.0)
    await tokens.take(within=30.0)
    assert time.now == pytest.approx(130.0)


async def test_what_is_not_urgent_leaves_something_to_what_is(time):
    tokens = budget(time, burst=21.0)
    for _ in range(19):
        await tokens.take(within=0.0, urgent=False)
    with pytest.raises(BudgetSpent):
        await tokens.take(within=0.5, urgent=False)
    for _ in range(2):
        await tokens.take(within=0.0)
    with pytest.raises(BudgetSpent):
        await tokens.take(within=0.0)


async def test_members_share_it(time):
    live = 1
    tokens = budget(time, per_minute=120.0, burst=2.0, members=lambda: live)
    live = 4
    passed = []
    for _ in range(3):
        await tokens.take(within=10.0)
        passed.append(time.now - 100.0)
    assert passed == pytest.approx([0.0, 2.0, 4.0])


async def test_whoever_is_cancelled_gives_his_turn_back():
    tokens = Budget("reads", per_minute=60.0, burst=1.0)
    await tokens.take(within=0.0)
    waiting = asyncio.create_task(tokens.take(within=60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(BudgetSpent) as raised:
        await tokens.take(within=0.0)
    assert raised.value.retry_after <= 1.0


@settings(max_examples=200)
@given(
    per_minute=st.floats(6.0, 600.0),
    burst=st.floats(1.0, 100.0),
    pauses=st.lists(st.floats(0.0, 30.0), min_size=1, max_size=200),
)
async def test_no_minute_sees_more_than_both_numbers(per_minute, burst, pauses):
    time = Time()
    tokens = Budget("reads", per_minute=per_minute, burst=burst, clock=time)
    passed = []
    for pause in pauses:
        time.now += pause
        try:
            await tokens.take(within=0.0)
        except BudgetSpent:
            continue
        passed.append(time.now)
    for first in passed:
        assert sum(1 for at in passed if first <= at < first + 60.0) <= per_minute + burst + 1e-6


def test_one_title_is_one_budget_as_long_as_it_is_used():
    budgets = Budgets()
    first = budgets.of("reads", per_minute=60.0, burst=1.0)
    assert budgets.of("reads", per_minute=60.0, burst=1.0) is first
    assert budgets.of("writes", per_minute=60.0, burst=1.0) is not first
    budgets.share(lambda: 3)
    assert first._members() == 3
    del first
    gc.collect()
    assert "reads" not in budgets._budgets


async def test_a_resync_waits_while_changes_pass():
    """Whoever is not urgent, by itself or because its reconcile is not, lets the others go first."""
    tokens = Budget("reads", per_minute=6_000.0, burst=1.0)
    await tokens.take(within=9.0)

    async def resync():
        with occasion.of_reconcile() as present:
            present.urgent = False
            await tokens.take(within=9.0)
        passed.append("resync")

    async def change():
        await tokens.take(within=9.0)
        passed.append("change")

    passed = []
    async with asyncio.TaskGroup() as group:
        group.create_task(resync())
        await asyncio.sleep(0)
        for _ in range(3):
            group.create_task(change())
    assert passed == ["change", "change", "change", "resync"]
