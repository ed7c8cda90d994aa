"""What git says, in our words."""

import pytest

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.sources.git.failures import explain
from secret_manager_controller.sources.git.login import Access, GitLogin
from secret_manager_controller.sources.git.remote import parse_remote

ACCESS = Access(parse_remote("https://git.example/org/canary", of="it"), GitLogin(hint="; see there"))


@pytest.mark.parametrize(
    ("status", "errors", "kind", "reason"),
    [
        (128, "fatal: Authentication failed for 'https://canary'", PermanentError, Reason.CREDENTIALS_UNAVAILABLE),
        (128, "git@h: Permission denied (publickey).", PermanentError, Reason.CREDENTIALS_UNAVAILABLE),
        (128, "The requested URL returned error: 403", PermanentError, Reason.CREDENTIALS_UNAVAILABLE),
        (128, "The requested URL returned error: 301", PermanentError, Reason.FETCH_FAILED),
        (128, "fatal: repository 'https://canary/' not found", PermanentError, Reason.FETCH_FAILED),
        (128, "fatal: remote error: upload-pack: not our ref 0", RetryableError, Reason.FETCH_FAILED),
        (128, "fatal: fetch-pack: invalid index-pack output", PermanentError, Reason.INVALID_ARCHIVE),
        (128, "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output", RetryableError, Reason.FETCH_FAILED),
        (128, "Could not resolve host: canary", RetryableError, Reason.FETCH_FAILED),
        (153, "", PermanentError, Reason.INVALID_ARCHIVE),
        (-25, "", PermanentError, Reason.INVALID_ARCHIVE),
        (127, "sh: git: not found", RetryableError, Reason.FETCH_FAILED),
        (1, "", RetryableError, Reason.FETCH_FAILED),
        (128, "remote: Authentication failed\nfatal: x", RetryableError, Reason.FETCH_FAILED),
    ],
)
def test_a_failure_is_told_in_our_words(status, errors, kind, reason):
    error = explain(status, errors.encode(), ACCESS)
    assert isinstance(error, kind)
    assert reason is error.reason
    assert "canary" not in error.message


def test_a_refused_login_says_where_it_is():
    assert explain(128, b"Authentication failed", ACCESS).message == "git.example refused the login; see there"
