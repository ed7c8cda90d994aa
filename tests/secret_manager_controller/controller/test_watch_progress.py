"""A watch that hangs is told from one of a quiet cluster by what listings show."""

import pytest

from secret_manager_controller.controller.watch_progress import STALL_SECONDS, WatchProgress

KIND = "GitRepository"


class Bench:
    def __init__(self):
        self.now = 0.0
        self.progress = WatchProgress(lambda: self.now)
        self.shown, self.listed, self.stalled = self.progress.shown, self.progress.listed, self.progress.stalled

    def lag(self):
        return dict(self.progress.lags()).get(KIND)


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize("newest", [None, 5, 7])
def test_a_watch_that_has_shown_what_was_listed_has_no_lag(bench, newest):
    bench.shown(KIND, 7)
    bench.listed(KIND, newest)
    bench.now = 1000
    assert (bench.lag(), bench.stalled()) == (0, None)


def test_what_is_not_listed_has_no_series(bench):
    bench.shown(KIND, 7)
    assert bench.lag() is None


def test_a_watch_that_hangs_over_two_listings_is_told(bench):
    bench.shown(KIND, 7)
    bench.listed(KIND, 8)
    bench.now = STALL_SECONDS + 1
    assert (bench.lag(), bench.stalled()) == (61, None)
    bench.listed(KIND, 9)
    assert bench.stalled() == "the watch of GitRepository has not shown for 61 s what two listings did"
    bench.shown(KIND, 8)
    assert (bench.lag(), bench.stalled()) == (0, None)


def test_a_watch_that_is_a_little_late_is_not_told(bench):
    bench.listed(KIND, 8)
    bench.listed(KIND, 8)
    bench.now = STALL_SECONDS
    assert bench.stalled() is None


def test_an_object_that_was_deleted_before_it_was_shown_is_no_stall(bench):
    """After a gap nothing tells of it, and the next listing is without it."""
    bench.shown(KIND, 7)
    bench.listed(KIND, 9)
    bench.now = 300
    bench.listed(KIND, 8)
    assert (bench.lag(), bench.stalled()) == (0, None)


def test_an_older_state_that_is_shown_later_changes_nothing(bench):
    for version in (9, 3, None):
        bench.shown(KIND, version)
    bench.listed(KIND, 9)
    assert bench.lag() == 0


def test_a_kind_that_is_not_watched_any_more_is_forgotten(bench):
    bench.listed(KIND, 9)
    bench.progress.forget(KIND)
    assert bench.lag() is None
