"""What the settings of all stores share: data keys that hold text, quotas that are numbers."""

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.providers.settings import needed, quota, text_of


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        pytest.param({"a": b"x"}, "x", id="text"),
        pytest.param({"a": b" x\n"}, "x", id="with an editor's newline"),
        pytest.param({"b": b"y"}, "y", id="under its other name"),
        pytest.param({"a": b"x", "b": b"y"}, "x", id="under both"),
        pytest.param({"a": b"", "b": b"y"}, None, id="empty"),
        pytest.param({"a": b"\xff"}, None, id="no ASCII"),
        pytest.param({}, None, id="absent"),
    ],
)
def test_a_data_key_holds_text_or_nothing(secret, expected):
    assert text_of(secret, "a", "b") == expected


def test_what_a_secret_lacks_is_told_by_the_field_and_the_key_without_its_content():
    with pytest.raises(PermanentError) as raised:
        needed({"a": b"\xffs3cr3t"}, "a", store="aws")
    assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert "spec.provider.aws.auth.secretName has no usable data key 'a'" in raised.value.message
    assert "s3cr3t" not in raised.value.message


@pytest.mark.parametrize(("variables", "expected"), [({}, 7), ({"Q": ""}, 7), ({"Q": "12"}, 12)])
def test_a_quota_is_what_the_variable_says_or_the_stores_own(variables, expected):
    assert quota(variables, "Q", default=7, counted="requests") == expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_a_quota_that_is_none_is_refused_with_the_variable(text):
    with pytest.raises(PermanentError, match=f"Q must be how many requests, not '{text}'"):
        quota({"Q": text}, "Q", default=7, counted="requests")
