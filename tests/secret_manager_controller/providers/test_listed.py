"""One object's share of a listing."""

import pytest

from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.listed import Listed

MINE, HIS = OwnerMark("cluster-a", "team/app"), OwnerMark("cluster-a", "team/app-2")
SECRETS = (("one", MINE), ("two", HIS), ("three", None), ("four", MINE))


@pytest.fixture
def listed():
    return Listed(SECRETS, name_of=lambda secret: secret[0], mark_of=lambda secret: secret[1])


@pytest.mark.parametrize(
    ("mark", "names", "expected"),
    [
        pytest.param(MINE, (), {"one", "four"}, id="a mark's"),
        pytest.param(HIS, {"three"}, {"two", "three"}, id="a name beside a mark's"),
        pytest.param(MINE, {"one", "two"}, {"one", "two", "four"}, id="a name of another mark"),
        pytest.param(OwnerMark("cluster-b", "team/app"), {"five"}, set(), id="neither"),
    ],
)
def test_it_is_found_by_mark_and_by_name(listed, mark, names, expected):
    assert {secret[0]: secret for secret in SECRETS if secret[0] in expected} == listed.of(mark, names)


def test_a_listing_is_looked_through_once_whoever_asks():
    looks = []

    def name_of(secret):
        looks.append(secret)
        return secret[0]

    listed = Listed(SECRETS, name_of=name_of, mark_of=lambda secret: secret[1])
    for number in range(100):
        listed.of(OwnerMark("cluster-a", f"team/app-{number}"), {"one"})
    assert list(SECRETS) == looks
