"""The desired state is refused as a whole, or every secret in it can be written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.desired import desired_state
from secret_manager_controller.model.inventory import MAX_SECRETS
from secret_manager_controller.model.names import STORE_RULES
from secret_manager_controller.model.plaintext import Entry, Plaintext, ServiceEntries
from secret_manager_controller.model.secret import SecretValue, SourceHash

AWS, AZURE = STORE_RULES["aws"], STORE_RULES["azure"]


def entry(key, value=b"value", path="profiles/dev/application.secrets.env"):
    return Entry(key, SecretValue(value), SourceHash(f"hash-of-{key}"), path)


def one_service(*entries, service="idam"):
    return Plaintext((ServiceEntries(service, entries),))


def refused(plaintext, *, rules=AWS, prefix=None, suffix=None):
    with pytest.raises(PermanentError) as caught:
        desired_state(plaintext, prefix=prefix, suffix=suffix, rules=rules)
    return caught.value


def test_the_prefix_defaults_to_the_service():
    state = desired_state(one_service(entry("url")), prefix=None, suffix="-prod", rules=AWS)
    assert list(state.secrets) == ["idam-url-prod"]
    assert state.secrets["idam-url-prod"].value == SecretValue(b"value")


def test_an_empty_prefix_is_no_prefix():
    assert list(desired_state(one_service(entry("url")), prefix="", suffix=None, rules=AWS).secrets) == ["url"]


def test_two_keys_that_become_one_name_are_told_with_their_files():
    error = refused(one_service(entry("a b", path="x.env"), entry("a_b", path="y.yaml")))
    assert error.reason is Reason.NAME_COLLISION
    assert "x.env" in error.message
    assert "y.yaml" in error.message
    assert "idam-a_b" in error.message


def test_azure_takes_names_that_differ_in_case_for_one():
    plaintext = one_service(entry("Key"), entry("key"))
    assert refused(plaintext, rules=AZURE).reason is Reason.NAME_COLLISION
    assert len(desired_state(plaintext, prefix=None, suffix=None, rules=AWS).secrets) == 2


def test_one_prefix_for_two_services_with_one_key_collides():
    plaintext = Plaintext((ServiceEntries("a", (entry("url"),)), ServiceEntries("b", (entry("url"),))))
    assert refused(plaintext, prefix="p").reason is Reason.NAME_COLLISION
    assert set(desired_state(plaintext, prefix=None, suffix=None, rules=AWS).secrets) == {"a-url", "b-url"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"", Reason.EMPTY_VALUE, id="empty"),
        pytest.param(b"x" * 65_537, Reason.VALUE_TOO_LARGE, id="one byte too many"),
    ],
)
def test_a_value_that_the_store_cannot_hold_is_told_by_key_and_file(value, reason):
    error = refused(one_service(entry("good"), entry("bad", value)))
    assert error.reason is reason
    assert "'bad'" in error.message
    assert "application.secrets.env" in error.message


@pytest.mark.parametrize(("rules", "limit"), [(AWS, 65_536), (AZURE, 25_600)], ids=["aws", "azure"])
def test_a_value_of_exactly_the_limit_is_taken_and_no_larger_one(rules, limit):
    state = desired_state(one_service(entry("big", b"x" * limit)), prefix=None, suffix=None, rules=rules)
    assert len(state.secrets["idam-big"].value) == limit
    assert refused(one_service(entry("big", b"x" * (limit + 1))), rules=rules).reason is Reason.VALUE_TOO_LARGE


def test_no_secret_at_all_is_an_error_that_deletes_nothing():
    assert refused(Plaintext(())).reason is Reason.EMPTY_SOURCE
    assert refused(one_service()).reason is Reason.EMPTY_SOURCE


def test_more_secrets_than_a_status_can_record_are_refused():
    entries = [entry(f"k{number}") for number in range(MAX_SECRETS + 1)]
    assert refused(one_service(*entries)).reason is Reason.TOO_MANY_SECRETS
    assert len(desired_state(one_service(*entries[1:]), prefix=None, suffix=None, rules=AWS).secrets) == MAX_SECRETS


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), unique=True, max_size=8))
def test_no_two_keys_ever_share_a_secret(keys):
    """Attack 5: either the names are one to one with the keys, or nothing at all is written."""
    try:
        state = desired_state(one_service(*map(entry, keys)), prefix=None, suffix=None, rules=AZURE)
    except PermanentError:
        return
    assert len({name.lower() for name in state.secrets}) == len(keys)
    assert {secret.source_hash for secret in state.secrets.values()} == {f"hash-of-{key}" for key in keys}
