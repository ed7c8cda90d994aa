"""Owner marks stand in labels and annotations, and are found again from both."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.gcp_marks import (
    annotations_of,
    filter_of,
    label_value,
    labels_of,
    mark_of,
)
from secret_manager_controller.testing.gcp_limits import check_secret
from secret_manager_controller.testing.gcp_store import Secret

PARTS = st.text(min_size=1, max_size=300).filter(str.strip)


@given(cluster=PARTS, owner=PARTS)
def test_every_mark_can_be_stored_and_found_again(cluster, owner):
    mark = OwnerMark(cluster, owner)
    secret = Secret(labels=labels_of(mark), annotations=annotations_of(mark, write="6f1c-…"))
    secret.replication.automatic.SetInParent()
    check_secret(secret, regional=False)
    assert mark_of(secret.labels, secret.annotations) == mark


@given(first=PARTS, second=PARTS)
def test_two_texts_are_two_labels(first, second):
    assert (label_value(first) == label_value(second)) == (first == second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster-a", "cluster-a"),
        ("a" * 63, "a" * 63),
        ("5d0a1c2e-1111-2222-3333-444455556666", None),
        ("team-a/app", None),
        ("Cluster", None),
        ("a" * 64, None),
        ("h-" + "0" * 40, None),
    ],
)
def test_a_label_is_the_text_where_it_can_hold_it(text, expected):
    value = label_value(text)
    assert value == expected if expected else re.fullmatch("h-[0-9a-f]{40}", value)


def test_a_filter_names_the_owner_or_the_whole_cluster():
    assert filter_of("cluster-a", None) == "labels.smc_cluster=cluster-a"
    assert filter_of("cluster-a", "team/app").startswith("labels.smc_cluster=cluster-a AND labels.smc_owner=h-")


@pytest.mark.parametrize("mark", [OwnerMark("", "n/x"), OwnerMark("c", ""), OwnerMark("c" * 1025, "n/x")])
def test_a_mark_that_cannot_be_stored_is_refused(mark):
    with pytest.raises(PermanentError, match=r"set another cluster id|give the object a shorter name") as raised:
        annotations_of(mark)
    assert raised.value.reason is Reason.STORE_REFUSED
