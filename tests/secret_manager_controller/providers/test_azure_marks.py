"""Tags, and what they and a listing tell of a version."""

import datetime

import pytest
from azure.keyvault.secrets import SecretProperties
from azure.keyvault.secrets._generated.models import SecretAttributes
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.azure_marks import (
    CLUSTER_TAG,
    MANAGED_BY_TAG,
    MAX_TAGS,
    OURS,
    OWNER_TAG,
    WRITE_TAG,
    Seen,
    inherited_mark,
    mark_of,
    tags_of,
)
from secret_manager_controller.testing.contract_subject import ME, NEIGHBOUR

WRITE = "6f1c6f1c6f1c-" + "a" * 51
PART = st.text(min_size=1, max_size=256)


def instant(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def properties(*, tags=None, created=100, updated=100, enabled=True, name="a"):
    attributes = SecretAttributes(enabled=enabled)
    attributes["created"], attributes["updated"] = created, updated
    return SecretProperties(attributes, f"https://v.vault.azure.net/secrets/{name}", tags=tags)


def seen(*, mark=None, created=100, edited=False):
    return Seen("a", created, edited, True, mark, None)


class TestTags:
    @given(cluster=PART, owner=PART)
    def test_a_mark_comes_back(self, cluster, owner):
        mark = OwnerMark(cluster, owner)
        assert mark_of(tags_of(mark, write=WRITE, beside={"team": "blue"})) == mark

    @pytest.mark.parametrize("missing", [MANAGED_BY_TAG, CLUSTER_TAG, OWNER_TAG])
    @pytest.mark.parametrize("instead", [None, ""], ids=["gone", "empty"])
    def test_half_a_mark_is_none(self, missing, instead):
        tags = tags_of(ME, write=None, beside=None)
        del tags[missing]
        assert mark_of(tags if instead is None else tags | {missing: instead}) is None

    def test_what_else_stands_there_stays(self):
        tags = tags_of(ME, write=WRITE, beside={"team": "blue", **tags_of(NEIGHBOUR, write="old", beside=None)})
        assert tags == {"team": "blue", **tags_of(ME, write=WRITE, beside=None)}
        assert set(tags) - OURS == {"team"}

    def test_adopting_leaves_the_write_that_made_the_version(self):
        assert tags_of(ME, write=None, beside={WRITE_TAG: WRITE})[WRITE_TAG] == WRITE

    @pytest.mark.parametrize("others", [MAX_TAGS - 4, MAX_TAGS - 3])
    def test_there_is_room_for_fifteen(self, others):
        beside = {f"t{number}": "x" for number in range(others)}
        if others + 4 <= MAX_TAGS:
            assert len(tags_of(ME, write=WRITE, beside=beside)) == MAX_TAGS
        else:
            with pytest.raises(PermanentError, match="there are 16, and Azure allows 15"):
                tags_of(ME, write=WRITE, beside=beside)

    def test_no_name_holds_what_resource_manager_forbids(self):
        assert [tag for tag in OURS if set(tag) & set("<>%&\\?/")] == []


class TestSeen:
    def test_of_our_own_version_it_tells_the_write(self):
        found = Seen.of(properties(tags=tags_of(ME, write=WRITE, beside=None)))
        assert (found.version, found.mark, found.edited) == (f"100-{WRITE}", ME, False)

    @pytest.mark.parametrize(
        "tags",
        [None, {}, {WRITE_TAG: "by hand"}, {WRITE_TAG: WRITE + "a"}, {WRITE_TAG: WRITE.upper()}],
        ids=["no tags", "empty", "words", "too long", "upper case"],
    )
    def test_of_another_it_tells_the_second(self, tags):
        assert Seen.of(properties(tags=tags)).version == "100"

    def test_of_a_disabled_one_it_tells_none(self):
        assert Seen.of(properties(enabled=False)).version is None

    def test_an_edit_leaves_the_version(self):
        edited = Seen.of(properties(updated=101))
        assert (edited.version, edited.edited) == ("100", True)

    def test_names_are_compared_without_case(self):
        assert Seen.of(properties(name="Db-Url")).key == "db-url"

    def test_what_an_answer_leaves_out_is_no_fault(self):
        bare = Seen.of(SecretProperties(None, "https://v.vault.azure.net/secrets/a"))
        assert (bare.version, bare.mark) == ("0", None)


class TestInheritedMark:
    @pytest.mark.parametrize(
        ("versions", "expected"),
        [
            pytest.param([seen(created=1)], None, id="nobody ever had it"),
            pytest.param([seen(created=1, mark=ME)], ME, id="ours before"),
            pytest.param([seen(created=1, mark=ME), seen(created=2), seen(created=3)], ME, id="some by hand between"),
            pytest.param([seen(created=1, mark=ME), seen(created=2, mark=NEIGHBOUR)], NEIGHBOUR, id="the last owner"),
            pytest.param([seen(created=2, mark=ME), seen(created=1, mark=NEIGHBOUR)], ME, id="in any order"),
            pytest.param([seen(created=1, mark=ME), seen(created=2, edited=True)], None, id="removed from one between"),
            pytest.param([seen(created=100, mark=ME)], ME, id="in the same second"),
            pytest.param([seen(created=101, mark=ME)], None, id="a later one is not looked at"),
        ],
    )
    def test_by_the_versions_before(self, versions, expected):
        assert inherited_mark(seen(), [*versions, seen()]) == expected

    def test_what_was_edited_inherits_none(self):
        assert inherited_mark(seen(edited=True), [seen(created=1, mark=ME)]) is None
