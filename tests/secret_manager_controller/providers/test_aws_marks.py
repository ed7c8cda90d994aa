"""Owner marks as tags, and version ids that say what wrote them."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import SecretName, SecretValue, SourceHash, Version
from secret_manager_controller.providers.aws_marks import (
    CLUSTER_TAG,
    MANAGED_BY_TAG,
    OWNER_TAG,
    mark_of,
    tags_of,
    version_of,
)

MARK = OwnerMark("cluster-a", "team/app")
SECRET = DesiredSecret(SecretName("app-token"), SecretValue(b"v"), SourceHash("0" * 32))
texts = st.text(max_size=40)


def version(**changes):
    write = {"secret": SECRET, "previous": None, "mark": MARK, "revision": "main@sha1:" + "a" * 40, **changes}
    return version_of(write.pop("secret"), **write)


def test_a_mark_comes_back_from_its_tags():
    assert mark_of(tags_of(MARK)) == MARK


@pytest.mark.parametrize("missing", [MANAGED_BY_TAG, CLUSTER_TAG, OWNER_TAG])
def test_a_mark_needs_all_its_tags(missing):
    assert mark_of([tag for tag in tags_of(MARK) if tag["Key"] != missing]) is None


def test_what_another_tool_manages_has_no_mark():
    tags = [tag | {"Value": "terraform"} if tag["Key"] == MANAGED_BY_TAG else tag for tag in tags_of(MARK)]
    assert mark_of(tags) is None


@pytest.mark.parametrize(
    ("revision", "begins"),
    [
        pytest.param("main@sha1:0123456789abcdef" + "0" * 24, "0123456789ab-", id="GitRepository"),
        pytest.param("v1.2@sha256:fedcba9876543210" + "0" * 48, "fedcba987654-", id="OCIRepository"),
        pytest.param("0123456789abcdef" + "0" * 24, "0123456789ab-", id="a bare commit"),
    ],
)
def test_the_id_begins_with_the_commit(revision, begins):
    assert version(revision=revision).startswith(begins)


@given(texts, texts, st.none() | texts, texts)
def test_every_id_is_one_that_aws_takes(name, source_hash, previous, revision):
    secret = DesiredSecret(SecretName(name), SecretValue(b"v"), SourceHash(source_hash))
    made = version(secret=secret, previous=previous, revision=revision)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{51}", made)


@pytest.mark.parametrize(
    "change",
    [
        {"secret": dataclasses.replace(SECRET, name=SecretName("app-other"))},
        {"secret": dataclasses.replace(SECRET, source_hash=SourceHash("1" * 32))},
        {"previous": Version("v1")},
        {"mark": OwnerMark("cluster-b", "team/app")},
        {"mark": OwnerMark("cluster-a", "team/app-2")},
        {"revision": "main@sha1:" + "b" * 40},
        {"attempt": 1},
    ],
    ids=["name", "source", "previous version", "cluster", "owner", "revision", "attempt"],
)
def test_another_write_has_another_id(change):
    assert version(**change) != version()


def test_the_same_write_has_the_same_id():
    assert version() == version()


def test_the_id_does_not_depend_on_the_value():
    assert version(secret=dataclasses.replace(SECRET, value=SecretValue(b"other"))) == version()


@given(st.lists(texts, min_size=2, max_size=2), st.lists(texts, min_size=2, max_size=2))
def test_parts_do_not_run_into_each_other(one, other):
    ids = [version(mark=OwnerMark(*parts)) for parts in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
