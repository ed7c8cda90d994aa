"""Whose turn it is: changes first, namespaces in turn, and nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.controller.line import CHANGES_IN_A_ROW, Priority, WaitingLine

CHANGE, RESYNC = Priority.CHANGE, Priority.RESYNC


def line_of(*keys, now=0.0):
    line = WaitingLine()
    for key, priority in keys:
        line.push(key, priority, now=now)
    return line


def drained(line):
    return [line.pop()[0] for _ in range(len(line))]


def test_changes_go_before_resyncs():
    assert drained(line_of(("a/1", RESYNC), ("a/2", CHANGE), ("b/1", RESYNC), ("b/2", CHANGE))) == [
        "a/2", "b/2", "a/1", "b/1",
    ]  # fmt: skip


def test_a_noisy_namespace_delays_only_itself():
    keys = [(f"noisy/{number}", CHANGE) for number in range(100)] + [("quiet/1", CHANGE), ("quiet/2", CHANGE)]
    assert drained(line_of(*keys))[:5] == ["noisy/0", "quiet/1", "noisy/1", "quiet/2", "noisy/2"]


def test_a_stream_of_changes_lets_a_resync_through():
    line = line_of(("a/resync", RESYNC), *((f"b/{number}", CHANGE) for number in range(30)))
    assert drained(line).index("a/resync") == CHANGES_IN_A_ROW


def test_a_key_waits_once_and_takes_the_better_priority_and_its_first_time():
    line = line_of(("a/1", RESYNC), ("a/2", RESYNC))
    line.push("a/2", CHANGE, now=5.0)
    line.push("a/2", RESYNC, now=6.0)
    assert list(line.since()) == [("a/1", 0.0), ("a/2", 0.0)]
    assert drained(line) == ["a/2", "a/1"]


def test_a_removed_key_leaves_no_trace():
    line = line_of(("a/1", CHANGE))
    line.remove("a/1")
    line.remove("a/1")
    assert (len(line), "a/1" in line) == (0, False)
    with pytest.raises(LookupError):
        line.pop()


def test_a_full_lane_waits_and_the_others_do_not():
    line = WaitingLine()
    for number in range(3):
        line.push(f"a/{number}", CHANGE, now=0.0, lane="down")
    line.push("a/up", RESYNC, now=0.0, lane="up")
    assert line.pop({"down"}) == ("a/up", "up")
    with pytest.raises(LookupError):
        line.pop({"down"})
    assert line.pop() == ("a/0", "down")


@given(st.lists(st.tuples(st.sampled_from(["a/1", "a/2", "b/1", "c/1"]), st.sampled_from(Priority))))
def test_every_key_that_waits_is_handed_out_exactly_once(pushes):
    line = line_of(*pushes)
    assert sorted(drained(line)) == sorted({key for key, _ in pushes})
    assert len(line) == 0
