"""What is answered to a login is a token, or told by its kind."""

import time

import pytest

from secret_manager_controller.providers import gcp_exchange as exchange
from secret_manager_controller.providers.gcp_credentials import has_expired
from secret_manager_controller.providers.gcp_errors import GcpRefusal
from secret_manager_controller.testing import tokens

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def answer(monkeypatch):
    """Return a function that sets what every exchange is answered."""

    def set_answer(document):
        monkeypatch.setattr(exchange, "_fetch", lambda *_: document)

    return set_answer


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"access_token": "x"},
        {"access_token": "x", "expires_in": "soon"},
        {"access_token": "x", "expires_in": None},
        {"access_token": 7, "expires_in": 60},
        {"access_token": "", "expires_in": 60},
        {"access_token": "x\r\nevil: y", "expires_in": 60},
    ],
)
def test_an_answer_without_a_usable_token_is_a_refusal(answer, document):
    answer(document)
    assert exchange.by_metadata("127.0.0.1:9") == GcpRefusal("UNKNOWN")


@pytest.mark.parametrize(
    "document", [{}, {"accessToken": "x"}, {"accessToken": "x", "expireTime": "soon"}, {"expireTime": LATER}]
)
def test_an_impersonation_without_a_usable_token_is_a_refusal(answer, document):
    answer(document)
    assert exchange.by_impersonation("http://127.0.0.1:9", exchange.Token("x", 60.0), None) == GcpRefusal("UNKNOWN")


@pytest.mark.parametrize("seconds", [3599, "3599"])
def test_a_lifetime_may_be_a_text(answer, seconds):
    answer({"access_token": "x", "expires_in": seconds})
    assert exchange.by_metadata("127.0.0.1:9") == exchange.Token("x", 3599.0)


def test_a_point_in_time_becomes_a_lifetime(answer):
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1000))
    answer({"accessToken": "x", "expireTime": at})
    token = exchange.by_impersonation("http://127.0.0.1:9", exchange.Token("x", 60.0), None)
    assert token.lifetime == pytest.approx(1000, abs=5)


def test_a_token_does_not_print():
    assert "s3cr3t" not in repr(exchange.Token("s3cr3t", 60.0))


def test_whatever_happens_to_a_connection_is_a_refusal_without_an_answer():
    for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "http://absent.invalid/"):
        refusal = exchange._fetch("GET", url, {}, b"", None)
        assert (refusal.answered, refusal.passing) == (False, True)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (None, ""),
        ({"error": "invalid_grant"}, "invalid_grant"),
        ({"error": "Some text: s3cr3t"}, ""),
        ({"error": {"message": "s3cr3t"}}, ""),
    ],
)
def test_only_words_of_the_protocol_are_told(document, reason):
    assert exchange._reason(document) == reason


@pytest.mark.parametrize(("header", "seconds"), [("", None), ("7", 7.0), ("-1", None), ("99999", None), ("soon", None)])
def test_a_wish_to_wait_is_believed_within_reason(header, seconds):
    assert exchange._seconds(header) == seconds


@pytest.mark.parametrize(
    ("token", "expired"),
    [
        (tokens.web_identity_token("s", audience="a", lifetime=-1), True),
        (tokens.web_identity_token("s", audience="a"), False),
        ("no.jwt.at all", False),
        ("garbage", False),
    ],
)
def test_a_token_tells_whether_it_is_over(token, expired):
    assert has_expired(token) is expired
