"""Versions are looked up as often as the budget allows, oldest first, and believed for a while in between."""

import asyncio

import pytest

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import gcp_looks
from secret_manager_controller.providers.budget import BudgetSpent
from secret_manager_controller.providers.gcp_looks import BELIEVED_FOR, COLD_PATIENCE, PATIENCE, VersionLooks

NAMES = tuple(SecretName(f"s-{number}") for number in range(6))


class Store:
    """Versions, a clock, and how many look-ups are still allowed."""

    def __init__(self):
        self.now = 0.0
        self.numbers = dict.fromkeys(NAMES, 1)
        self.allowed = 100
        self.looked = []
        self.patience = []

    async def look(self, name, within):
        await asyncio.sleep(0)
        self.patience.append(within)
        if self.allowed == 0:
            raise BudgetSpent(Reason.RATE_LIMITED, "spent")
        self.allowed -= 1
        self.looked.append(name)
        return self.numbers[name], True


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def looks(store):
    return VersionLooks(store.look, clock=lambda: store.now)


async def versions(looks):
    return {name: seen.version for name, seen in (await looks.of(NAMES)).items()}


async def test_what_the_budget_allows_is_looked_up_oldest_first(store, looks):
    for name in reversed(NAMES):
        store.now += 1.0
        await looks.of([name])
    store.looked.clear()
    for expected in (NAMES[:1:-1], NAMES[1::-1] + NAMES[2:4]):
        store.now, store.allowed = store.now + 100.0, 4
        await looks.of(NAMES)
        assert tuple(store.looked) == expected
        store.looked.clear()


async def test_what_is_not_looked_up_is_as_it_was_seen(store, looks):
    await looks.of(NAMES)
    store.now += 100.0
    store.numbers = dict.fromkeys(NAMES, 2)
    store.allowed = 4
    assert sorted((await versions(looks)).values()) == ["1", "1", "2", "2", "2", "2"]


async def test_what_was_written_since_is_known_without_a_look(store, looks):
    await looks.of(NAMES)
    looks.note(NAMES[0], 7)
    store.allowed = 0
    assert (await versions(looks))[NAMES[0]] == "7"
    assert looks.number(NAMES[0]) == 7


async def test_a_pass_waits_less_for_what_it_knows(store, looks):
    await looks.of(NAMES[:1])
    await looks.of(NAMES[:2])
    assert store.patience == [COLD_PATIENCE, COLD_PATIENCE, PATIENCE]


async def test_what_never_was_seen_fails_the_pass_and_the_next_goes_on(store, looks):
    store.allowed = 4
    with pytest.raises(RetryableError) as raised:
        await looks.of(NAMES)
    assert raised.value.reason is Reason.RATE_LIMITED
    store.allowed = 2
    assert len(await looks.of(NAMES)) == 6


async def test_what_was_seen_long_ago_is_not_believed(store, looks):
    await looks.of(NAMES)
    store.now += BELIEVED_FOR
    store.allowed = 0
    with pytest.raises(RetryableError):
        await looks.of(NAMES)


async def test_what_was_forgotten_comes_first(store, looks):
    await looks.of(NAMES)
    looks.forget(NAMES[3])
    assert looks.number(NAMES[3]) == 0
    store.now, store.allowed = store.now + 1.0, 1
    store.looked.clear()
    await looks.of(NAMES)
    assert store.looked == [NAMES[3]]


@pytest.mark.parametrize(
    "error",
    [PermanentError(Reason.STORE_ACCESS_DENIED, "denied"), RetryableError(Reason.STORE_UNAVAILABLE, "down")],
    ids=["denied", "down"],
)
async def test_another_error_fails_the_pass_at_once(error):
    async def refuse(name, within):
        raise error

    looks = VersionLooks(refuse, clock=lambda: 0.0)
    with pytest.raises(type(error)):
        await looks.of(NAMES)


@pytest.mark.parametrize(("number", "enabled", "version"), [(3, True, "3"), (3, False, None), (0, False, None)])
def test_a_version_that_cannot_be_read_is_none(number, enabled, version):
    assert gcp_looks.Seen(number, enabled, 0.0).version == version
