"""Trouble that lasts is told once, and then from time to time with a count."""

import logging

import pytest

from controller_telemetry import repeats
from controller_telemetry.repeats import REPEAT_INTERVAL, RepeatFilter


class Log:
    def __init__(self):
        self.now = 0.0
        self.filter = RepeatFilter(lambda: self.now)

    def tell(self, message="Not ready", level=logging.WARNING, **extra):
        """Return None where the line is left out, else how many were before it."""
        record = logging.getLogger("app").makeRecord("app", level, "f", 1, message, (), None, extra=extra)
        return getattr(record, "repeats", 0) if self.filter.filter(record) else None


@pytest.fixture
def log():
    return Log()


def test_a_repeat_is_left_out_and_told_with_a_count_later(log):
    told = []
    for second in range(0, int(REPEAT_INTERVAL) + 1, 60):
        log.now = float(second)
        told.append(log.tell(object="a/b", error="e", retry_s=second, trace_id=f"{second:032x}"))
    assert told == [0, None, None, None, None, 4]
    assert log.tell(object="a/b", error="e") is None


@pytest.mark.parametrize(
    "other",
    [{"object": "a/c"}, {"error": "f"}, {"revision": "2"}, {"message": "Not deleted"}, {"level": logging.ERROR}],
    ids=str,
)
def test_what_differs_is_no_repeat(log, other):
    line = {"object": "a/b", "error": "e", "revision": "1"}
    assert [log.tell(**line), log.tell(**line | other)] == [0, 0]


def test_a_line_that_tells_no_trouble_is_never_left_out_and_begins_anew(log):
    told = [log.tell(object="a/b", error="e"), log.tell("Ready", logging.INFO, object="a/b")]
    told += [log.tell("Ready", logging.INFO, object="a/b"), log.tell(object="a/b", error="e")]
    assert told == [0, 0, 0, 0]


def test_an_information_with_an_error_is_trouble(log):
    told = [log.tell("Renewal failed", logging.INFO, error="e") for _ in range(2)]
    assert told == [0, None]


def test_lines_about_no_object_are_told_apart_by_their_message(log):
    told = [
        log.tell("Sweep failed", error="e"),
        log.tell("Watch failed", error="e"),
        log.tell("Sweep failed", error="e"),
    ]
    assert told == [0, 0, None]


def test_lines_for_debugging_change_nothing(log):
    told = [log.tell(object="a/b"), log.tell("Nothing to do", logging.DEBUG, object="a/b"), log.tell(object="a/b")]
    assert told == [0, 0, None]


def test_what_is_remembered_is_bounded(log, monkeypatch):
    monkeypatch.setattr(repeats, "MAX_SUBJECTS", 2)
    told = [log.tell(object=name) for name in ("a", "b", "c", "a", "c")]
    assert told == [0, 0, 0, 0, None]
