"""What cannot work is refused, with the setting, and what would work."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lease_sharding.errors import SettingsError
from lease_sharding.settings import Settings, is_name

REFUSED = {
    "group": ({"group": "Not a name"}, "group 'Not a name' is not a name"),
    "group with control characters": ({"group": "a\x1b[31m"}, "group 'a [31m' is not a name"),
    "no shard": ({"shards": 0}, "shards is 0: it must be from 1 to 4096"),
    "too many shards": ({"shards": 4097}, "shards is 4097"),
    "half a second": ({"session_duration": 10.5}, "session_duration is 10.5 s: Leases count whole seconds"),
    "no session": ({"session_duration": 0}, "session_duration is 0 s"),
    "no renewals": ({"renew_interval": 0}, "renew_interval is 0 s: it must be more than 0"),
    "negative grace": ({"take_grace": -1}, "take_grace is -1 s: it must not be less than 0"),
    "negative drain": ({"drain_timeout": -0.5}, "drain_timeout is -0.5 s"),
    "one missed renewal kills": (
        {"renew_interval": 5},
        "renew_interval is 5 s, session_duration 10 s: a session must last longer than two renew intervals",
    ),
    "no margin to speak of": ({"margin": 0.05}, "margin is 0.05 s: it must be at least 1% of session_duration (0.1 s)"),
    "a request blocks all": (
        {"request_timeout": 4},
        "renew_interval + 2 x request_timeout is 10 s, session_duration - margin 9 s",
    ),
    "listings too rare": (
        {"resync_interval": 6},
        "resync_interval + 2 x request_timeout is 10 s, session_duration - margin 9 s",
    ),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_and_told(changes, told):
    with pytest.raises(SettingsError) as refused:
        Settings(**{"group": "demo", **changes})
    assert told in str(refused.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(SettingsError, match=r"shards is 0.*; .*take_grace is -1"):
        Settings(group="demo", shards=0, take_grace=-1)


def test_the_defaults_work_and_leave_time_for_a_call():
    assert Settings(group="demo").longest_call == 7


@given(
    session=st.integers(1, 60), renew=st.floats(0.1, 20), resync=st.floats(0.1, 20), timeout=st.floats(0.1, 20),
    margin=st.floats(0.01, 10),
)  # fmt: skip
def test_what_is_accepted_leaves_time_for_two_requests_and_a_call(session, renew, resync, timeout, margin):
    try:
        settings = Settings(
            group="demo", session_duration=session, renew_interval=renew, resync_interval=resync,
            request_timeout=timeout, margin=margin,
        )  # fmt: skip
    except SettingsError:
        return
    assert settings.longest_call >= 2 * timeout - 1e-9
    assert session > 2 * renew


def test_settings_are_a_value():
    settings = Settings(group="demo")
    assert settings == Settings(group="demo")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.shards = 5


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("a", True), ("pod-0.x", True), ("", False), ("-a", False), ("a-", False), ("A", False), ("a" * 64, False)],
)
def test_names(text, verdict):
    assert is_name(text) is verdict
