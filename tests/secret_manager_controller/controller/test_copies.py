"""Copies: the newest state that was shown, and none where that is in doubt."""

import random
import zlib

import pytest

from secret_manager_controller.controller.copies import MAX_PACKED, ObjectCopies

KEY = "team/app"


def smc(version="5", **rest):
    return {"metadata": {"namespace": "team", "name": "app", "resourceVersion": version, "uid": "u"}, **rest}


@pytest.fixture
def copies():
    return ObjectCopies()


def test_a_copy_is_the_object_without_its_managed_fields(copies):
    body = smc(spec={"a": [1, None, "ü"]}, status={"b": "c"})
    body["metadata"]["managedFields"] = [{"manager": "x"}]
    copies.put(body)
    assert smc(spec={"a": [1, None, "ü"]}, status={"b": "c"}) == copies.get(KEY)
    assert copies.get("team/other") is None


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(("5", "6"), "6", id="newer"),
        pytest.param(("5", "5"), "5", id="the same"),
        pytest.param(("10", "9"), None, id="older: one of them is not the truth"),
        pytest.param(("10", "9", "11"), "11", id="newer than both"),
        pytest.param(("10", "9", "9"), "9", id="restored from a backup, and shown again"),
        pytest.param(("x",), None, id="no number"),
        pytest.param(("5", ""), None, id="none"),
    ],
)
def test_which_state_counts(copies, shown, expected):
    for version in shown:
        copies.put(smc(version))
    copy = copies.get(KEY)
    assert expected == (None if copy is None else copy["metadata"]["resourceVersion"])


def test_what_the_watch_shows_of_our_own_write_is_not_packed_again(copies, monkeypatch):
    packed, compress = [], zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda text, level: packed.append(text) or compress(text, level))
    for _ in range(2):
        copies.put(smc("5"))
    assert (copies.get(KEY), len(packed)) == (smc("5"), 1)
    copies.distrust(KEY)
    copies.put(smc("5"))
    assert (copies.get(KEY), len(packed)) == (smc("5"), 2)


def test_a_large_object_is_not_kept_and_its_version_is(copies):
    noise = random.Random(0).randbytes(MAX_PACKED).hex()
    copies.put(smc("5"))
    copies.put(smc("6", status={"secrets": noise}))
    assert (copies.get(KEY), len(copies)) == (None, 0)
    assert copies.behind(KEY, 7)


@pytest.mark.parametrize(("listed", "expected"), [(4, False), (5, False), (6, True), (10, True), (None, False)])
def test_a_listing_tells_that_the_watch_is_behind(copies, listed, expected):
    copies.put(smc("5"))
    assert expected is copies.behind(KEY, listed)
    assert not copies.behind("team/other", listed)


def test_what_is_distrusted_or_gone_is_read(copies):
    copies.put(smc())
    copies.distrust(KEY)
    assert copies.get(KEY) is None
    assert copies.behind(KEY, 6)
    copies.put(smc())
    copies.remove(KEY)
    assert copies.get(KEY) is None
    assert not copies.behind(KEY, 6)
