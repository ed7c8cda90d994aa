"""Which revisions were applied, and when a source went back."""

import pytest

from secret_manager_controller.model.history import MAX_HISTORY, remembered, went_back


@pytest.mark.parametrize(
    ("history", "applied", "revision", "expected"),
    [
        (("a", "b"), "b", "a", True),
        (("a", "b"), "a", "b", False),
        (("a", "b"), "b", "b", False),
        (("a", "b"), "b", "c", False),
        (("a", "b"), "x", "a", False),
        (("a", "b"), None, "a", False),
        (("a", "b"), "b", None, False),
        ((), "b", "a", False),
    ],
)
def test_what_came_first_is_older(history, applied, revision, expected):
    assert went_back(history, applied=applied, revision=revision) is expected


def test_a_revision_keeps_its_first_place_and_the_oldest_go():
    assert remembered(("a", "b"), "a") == ("a", "b")
    assert remembered(("a",), None) == ("a",)
    long = tuple(map(str, range(MAX_HISTORY)))
    assert remembered(long, "new") == (*long[1:], "new")
