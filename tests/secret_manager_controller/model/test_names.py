"""Names: what prefix, key and suffix become in each store."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.names import STORE_RULES, secret_name

AWS, GCP, AZURE = (STORE_RULES[name] for name in ("aws", "gcp", "azure"))


@pytest.mark.parametrize(
    ("rules", "prefix", "key", "suffix", "expected"),
    [
        pytest.param(GCP, "my-service", "database-url", None, "my-service-database-url", id="prefix"),
        pytest.param(GCP, "my-service", "api-key", "prod", "my-service-api-key-prod", id="both"),
        pytest.param(GCP, None, "api-key", "prod", "api-key-prod", id="suffix"),
        pytest.param(GCP, None, "api-key", None, "api-key", id="neither"),
        pytest.param(GCP, "my-service", "properties", "-prod", "my-service-properties-prod", id="leading dash trimmed"),
        pytest.param(GCP, "svc-", "k", "--x--", "svc-k-x", id="dashes trimmed at both ends"),
        pytest.param(GCP, "a--b", "c---d", None, "a-b-c-d", id="runs collapse"),
        pytest.param(GCP, None, "spring.data/url x", None, "spring_data_url_x", id="gcp replaces with _"),
        pytest.param(AWS, None, "spring.data/url x", None, "spring.data/url_x", id="aws keeps what it allows"),
        pytest.param(AZURE, None, "spring.data_url", None, "spring-data-url", id="azure replaces with -"),
        pytest.param(GCP, "", "KEY", "", "KEY", id="case is kept, empty is none"),
    ],
)
def test_a_name_is_prefix_key_and_suffix_joined(rules, prefix, key, suffix, expected):
    assert secret_name(key, prefix=prefix, suffix=suffix, rules=rules) == expected


@pytest.mark.parametrize("key", ["", "  ", "---", "é"], ids=["empty", "blank", "dashes", "nothing allowed"])
def test_a_key_that_leaves_no_name_is_refused(key):
    with pytest.raises(PermanentError) as caught:
        secret_name(key, prefix=None, suffix=None, rules=GCP)
    assert caught.value.reason is Reason.INVALID_NAME


@pytest.mark.parametrize("rules", STORE_RULES.values(), ids=STORE_RULES)
def test_a_name_of_the_stores_greatest_length_is_the_longest_accepted(rules):
    assert len(secret_name("k" * rules.max_name, prefix=None, suffix=None, rules=rules)) == rules.max_name
    with pytest.raises(PermanentError, match=str(rules.max_name)):
        secret_name("k" * (rules.max_name + 1), prefix=None, suffix=None, rules=rules)


PARTS = st.text(max_size=60)


@given(PARTS, st.none() | PARTS, st.none() | PARTS, st.sampled_from(sorted(STORE_RULES)))
def test_every_name_is_one_that_the_store_allows(key, prefix, suffix, store):
    rules = STORE_RULES[store]
    try:
        name = secret_name(key, prefix=prefix, suffix=suffix, rules=rules)
    except PermanentError as error:
        assert error.reason is Reason.INVALID_NAME
    else:
        assert not rules.forbidden.search(name)
        assert 1 <= len(name) <= rules.max_name
        assert not re.search("--", name)
