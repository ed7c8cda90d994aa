"""Filters are read as AIP-160 says."""

import pytest

from secret_manager_controller.testing.gcp_filter import FilterError, parse

SECRET = {
    "name": "projects/1/secrets/My-App",
    "labels.env": "prod",
    "labels.empty": "",
    "create_time": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("name:my-app", True),
        ("name:other", False),
        ("labels.env=prod", True),
        ('labels.env="prod"', True),
        ("labels.env=pro", False),
        ("labels.env:pro", True),
        ("labels.env!=prod", False),
        ("labels.absent!=x", True),
        ("labels.absent=x", False),
        ("labels.env:*", True),
        ("labels.empty:*", True),
        ("labels.absent:*", False),
        ("labels.env=prod labels.absent:*", False),
        ("labels.env=prod AND name:app", True),
        ("name:zzz OR labels.env=prod", True),
        ("name:zzz OR name:app AND labels.env=test", False),
        ("NOT name:zzz", True),
        ("-name:app", False),
        ("NOT (name:zzz OR labels.env=prod)", False),
        ("(name:app) AND create_time>2025-06-01", True),
        ("create_time<=2025-06-01", False),
    ],
)
def test_a_filter_tells_what_matches(text, expected):
    assert parse(text)(SECRET) is expected


@pytest.mark.parametrize("text", ["(", "name", "name=", "a=b )", "AND", "a=b OR", "a=b AND", "(a=b", "?"])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(FilterError):
        parse(text)
