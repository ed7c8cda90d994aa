"""Logins: access keys, and a role that the pod's token opens and that is renewed in time."""

import asyncio
from collections import Counter

import pytest

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers.aws import AwsAssumedRole, AwsEndpoints, AwsWebIdentity
from secret_manager_controller.providers.aws_calls import Requests
from secret_manager_controller.providers.aws_keys import RENEW_AGAIN, RENEW_BEFORE, SESSION_LIFETIME, LoginKeys
from secret_manager_controller.providers.aws_login import AwsAccessKeys
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.testing.aws_auth import web_identity_token
from secret_manager_controller.testing.clocks import ManualClock
from secret_manager_controller.testing.contract_subject import ME

ROLE = "arn:aws:iam::123456789012:role/secrets"
SUBJECT = "system:serviceaccount:tools:secret-manager-controller"
ASSUME = "AssumeRoleWithWebIdentity"


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(web_identity_token(SUBJECT) + "\n")
    return file


@pytest.fixture
def role(token_file):
    return AwsWebIdentity(ROLE, token_file, "smc")


def operations(aws):
    return Counter(call.operation for call in aws.calls())


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
async def keys(aws, role, clock):
    requests = Requests(place="here", on_call=lambda *_: None, retries=RetryPolicy(attempts=1))
    endpoints = AwsEndpoints(aws.endpoint_url, aws.endpoint_url)
    yield LoginKeys(role, region=aws.region, endpoints=endpoints, requests=requests, clock=clock)
    await requests.aclose()


class TestAccessKeys:
    async def test_their_key_is_who_calls(self, aws, make_provider):
        login = aws.add_access_key("AKIAOTHER", "other")
        await make_provider(login=login).observe([], mark=ME)
        assert {call.who for call in aws.calls()} == {"AKIAOTHER"}

    @pytest.mark.parametrize(
        ("key", "secret", "code"),
        [("AKIAUNKNOWN", "x", "UnrecognizedClientException"), ("AKIAKNOWN", "wrong", "InvalidSignatureException")],
        ids=["unknown key", "wrong secret"],
    )
    async def test_wrong_ones_are_told_without_the_secret(self, aws, make_provider, key, secret, code):
        aws.add_access_key("AKIAKNOWN", "right")
        with pytest.raises(PermanentError, match=rf"does not accept access key …{key[-4:]} \({code}") as raised:
            await make_provider(login=AwsAccessKeys(key, secret)).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def test_an_expired_session_needs_a_new_secret(self, aws, make_provider):
        aws.fail("ListSecrets", "ExpiredTokenException", 400)
        with pytest.raises(PermanentError, match="renew its Secret") as raised:
            await make_provider().observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert operations(aws) == {"ListSecrets": 1}

    def test_they_do_not_print_what_is_secret(self):
        assert repr(AwsAccessKeys("AKIA", "s3cr3t", "t0k3n")) == "AwsAccessKeys(access_key_id='AKIA')"


class TestRole:
    async def test_the_pod_s_token_opens_it(self, aws, make_provider, role):
        provider = make_provider(login=role)
        await asyncio.gather(*(provider.observe([], mark=ME) for _ in range(20)))
        assert operations(aws) == {ASSUME: 1, "ListSecrets": 1}  # They share it.
        assert {call.who for call in aws.calls()} == {"secrets/smc"}

    @pytest.mark.parametrize(
        ("token", "kind", "text"),
        [
            pytest.param("garbage", PermanentError, "InvalidIdentityToken", id="garbage"),
            pytest.param(
                web_identity_token(SUBJECT, audience="api"), PermanentError, "audience", id="another audience"
            ),
            pytest.param(web_identity_token(SUBJECT)[:-4] + "AAAA", PermanentError, "OIDC provider", id="forged"),
            pytest.param(web_identity_token(SUBJECT, lifetime=-1), RetryableError, "has expired", id="expired"),
        ],
    )
    async def test_a_token_that_aws_does_not_take_is_told(self, make_provider, role, token_file, token, kind, text):
        token_file.write_text(token)
        with pytest.raises(kind, match=text) as raised:
            await make_provider(login=role).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert token not in str(raised.value)

    async def test_a_token_file_that_is_missing_is_told(self, make_provider, role, token_file):
        token_file.unlink()
        with pytest.raises(RetryableError, match=r"cannot be read \(FileNotFoundError\)") as raised:
            await make_provider(login=role).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    async def test_a_role_that_does_not_trust_the_pod_is_told(self, aws, make_provider, role):
        aws.fail(ASSUME, "AccessDenied", 403)
        with pytest.raises(PermanentError, match="trust policy") as raised:
            await make_provider(login=role).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    @pytest.mark.parametrize(("code", "status"), [("IDPCommunicationError", 400), ("Throttling", 400), ("Oops", 503)])
    async def test_an_outage_of_sts_is_tried_again(self, aws, make_provider, role, code, status):
        aws.fail(ASSUME, code, status)
        await make_provider(login=role).observe([], mark=ME)
        assert operations(aws) == {ASSUME: 2, "ListSecrets": 1}

    async def test_sts_may_be_elsewhere(self, aws, make_provider, role):
        endpoints = AwsEndpoints(secretsmanager=aws.endpoint_url, sts="http://127.0.0.1:9")
        with pytest.raises(RetryableError, match=ASSUME):
            await make_provider(login=role, endpoint_url=endpoints).observe([], mark=ME)
        assert aws.calls() == []

    async def test_keys_that_expired_early_are_renewed_once(self, aws, make_provider, role, token_file):
        provider = make_provider(login=role)
        await provider.observe([], mark=ME)
        aws.expire_sessions()
        token_file.write_text(web_identity_token(SUBJECT))
        names = [SecretName(f"s-{number}") for number in range(10)]
        await asyncio.gather(*(provider.observe([name], mark=ME) for name in names))
        assert operations(aws)[ASSUME] == 2

    async def test_keys_that_stay_expired_are_told(self, aws, make_provider, role):
        aws.fail("ListSecrets", "ExpiredTokenException", 400, times=9)
        with pytest.raises(PermanentError, match="check the clock") as raised:
            await make_provider(login=role).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert operations(aws) == {ASSUME: 2, "ListSecrets": 2}


class TestAssumedRole:
    @pytest.fixture
    def assumed(self, aws):
        return AwsAssumedRole(ROLE, aws.access_keys, "smc")

    async def test_access_keys_open_it(self, aws, make_provider, assumed):
        await make_provider(login=assumed).observe([], mark=ME)
        assert [(call.operation, call.who) for call in aws.calls()] == [
            ("AssumeRole", "secrets/smc"),
            ("ListSecrets", "secrets/smc"),
        ]

    async def test_a_role_that_they_may_not_assume_is_told(self, aws, make_provider, assumed):
        aws.fail("AssumeRole", "AccessDenied", 403)
        with pytest.raises(PermanentError, match=r"allow it sts:AssumeRole.* trust policy") as raised:
            await make_provider(login=assumed).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def test_wrong_keys_are_told(self, make_provider):
        login = AwsAssumedRole(ROLE, AwsAccessKeys("AKIAUNKNOWN", "x"), "smc")
        with pytest.raises(PermanentError, match="does not accept access key …NOWN") as raised:
            await make_provider(login=login).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def test_its_keys_are_renewed_once_when_they_expire_early(self, aws, make_provider, assumed):
        provider = make_provider(login=assumed)
        await provider.observe([], mark=ME)
        aws.expire_sessions()
        await provider.observe([], mark=ME)
        assert operations(aws) == {"AssumeRole": 2, "ListSecrets": 3}

    def test_it_does_not_print_what_is_secret(self, assumed):
        assert assumed.keys.secret_access_key not in repr(assumed)


class TestRenewal:
    async def test_keys_are_kept_as_long_as_they_hold(self, keys, clock):
        first = await keys.current()
        clock.now += SESSION_LIFETIME - RENEW_BEFORE - 1
        assert await keys.current() is first

    async def test_they_are_exchanged_before_they_expire(self, aws, keys, clock):
        first = await keys.current()
        clock.now += SESSION_LIFETIME - RENEW_BEFORE
        later = await asyncio.gather(*(keys.current() for _ in range(20)))
        assert later[0] is not first
        assert all(each is later[0] for each in later)
        assert operations(aws) == {ASSUME: 2}

    async def test_an_outage_while_the_keys_hold_goes_unnoticed(self, aws, keys, clock):
        first = await keys.current()
        aws.fail(ASSUME, "ServiceUnavailable", 503, times=2)
        clock.now += SESSION_LIFETIME - RENEW_BEFORE
        assert await keys.current() is first
        assert await keys.current() is first  # The next attempt is due in a minute.
        clock.now += RENEW_AGAIN
        assert await keys.current() is first
        clock.now += RENEW_AGAIN
        assert await keys.current() is not first
        assert operations(aws) == {ASSUME: 4}

    async def test_an_outage_when_they_are_over_is_told(self, aws, keys, clock):
        await keys.current()
        aws.fail(ASSUME, "ServiceUnavailable", 503)
        clock.now += SESSION_LIFETIME
        with pytest.raises(RetryableError) as raised:
            await keys.current()
        assert raised.value.reason is Reason.STORE_UNAVAILABLE

    async def test_a_failed_login_is_not_remembered(self, aws, keys):
        aws.fail(ASSUME, "AccessDenied", 403)
        with pytest.raises(ControllerError):
            await keys.current()
        await keys.current()
