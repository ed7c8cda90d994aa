"""Logins: metadata server, federation, impersonation and keys; tokens that are renewed in time, once for all."""

import asyncio
import json
import time
from collections import Counter

import pytest

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.gcp import (
    GcpCredentialsFile,
    GcpEndpoints,
    GcpFederation,
    GcpKey,
    GcpKeyFile,
    GcpMetadata,
)
from secret_manager_controller.providers.gcp_errors import GcpRefusal
from secret_manager_controller.providers.gcp_tokens import RENEW_AGAIN, RENEW_BEFORE, Requests, Tokens
from secret_manager_controller.testing import tokens
from secret_manager_controller.testing.clocks import ManualClock
from secret_manager_controller.testing.contract_subject import ME
from secret_manager_controller.testing.gcp import SERVICE_ACCOUNT
from secret_manager_controller.testing.gcp_auth import POOL

SUBJECT = "system:serviceaccount:tools:secret-manager-controller"
WORKLOAD = "workload@test-project.iam.gserviceaccount.com"
TARGET = "writer@test-project.iam.gserviceaccount.com"
KEY, FEDERATION, IMPERSONATION, METADATA = "JwtBearer", "ExchangeToken", "GenerateAccessToken", "MetadataToken"


def projected(**changes):
    return tokens.web_identity_token(SUBJECT, **({"audience": f"https:{POOL}"} | changes))


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(projected() + "\n")
    return file


@pytest.fixture
def configuration(tmp_path, gcp, token_file):
    file = tmp_path / "credentials.json"
    file.write_bytes(gcp.federation(token_file))
    return file


@pytest.fixture
def logins(gcp, configuration, tmp_path):
    """Return each way to log in, and who it is."""
    key_file = tmp_path / "key.json"
    key_file.write_bytes(gcp.key.document)
    return {
        "metadata": (GcpMetadata(gcp.metadata_host), WORKLOAD),
        "federation": (GcpFederation(configuration), f"principal:{SUBJECT}"),
        "key": (gcp.key, SERVICE_ACCOUNT),
        "key file": (GcpKeyFile(key_file), SERVICE_ACCOUNT),
        "either file, a key": (GcpCredentialsFile(key_file), SERVICE_ACCOUNT),
        "either file, a configuration": (GcpCredentialsFile(configuration), f"principal:{SUBJECT}"),
    }


EXCHANGES = {
    "metadata": METADATA,
    "federation": FEDERATION,
    "key": KEY,
    "key file": KEY,
    "either file, a key": KEY,
    "either file, a configuration": FEDERATION,
}


def operations(gcp):
    return Counter(call.operation for call in gcp.calls())


def altered(key, **changes):
    return GcpKey(json.dumps(json.loads(key.document) | changes).encode())


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
async def held(gcp, clock):
    requests = Requests("gcp", place="here", on_call=lambda *_: None, retries=RetryPolicy(attempts=1))
    gcp.token_lifetime(3600.0)
    yield Tokens(gcp.key, endpoints=gcp.endpoints, requests=requests, clock=clock)
    await requests.aclose()


class TestLogins:
    @pytest.mark.parametrize("kind", EXCHANGES)
    async def test_one_token_is_asked_for_and_used_by_all(self, gcp, make_gcp, logins, kind):
        login, who = logins[kind]
        provider = make_gcp(login=login)
        await asyncio.gather(*(provider.observe([], mark=ME) for _ in range(20)))
        assert operations(gcp)[EXCHANGES[kind]] == 1
        assert {call.who for call in gcp.calls() if call.operation == "ListSecrets"} == {who}

    @pytest.mark.parametrize("kind", EXCHANGES)
    async def test_another_service_account_is_acted_as(self, gcp, make_gcp, logins, kind):
        login, who = logins[kind]
        own = {"metadata": {"host": gcp.metadata_host}, "key": {"document": gcp.key.document}}
        options = own.get(kind) or {"file": login.file}
        await make_gcp(login=type(login)(**options, impersonate=TARGET)).observe([], mark=ME)
        assert operations(gcp) == {EXCHANGES[kind]: 1, IMPERSONATION: 1, "ListSecrets": 1}
        assert {call.operation: call.who for call in gcp.calls()} | {EXCHANGES[kind]: "-"} == {
            EXCHANGES[kind]: "-",
            IMPERSONATION: who,
            "ListSecrets": TARGET,
        }

    async def test_the_configuration_may_name_the_service_account(self, gcp, make_gcp, configuration, token_file):
        configuration.write_bytes(gcp.federation(token_file, impersonated=TARGET))
        await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert [call.who for call in gcp.calls()] == ["-", f"principal:{SUBJECT}", TARGET]

    @pytest.mark.parametrize("kind", EXCHANGES)
    async def test_what_messages_call_a_login_is_no_secret(self, logins, kind):
        login, _ = logins[kind]
        assert "PRIVATE KEY" not in repr(login) + login.title

    @pytest.mark.parametrize("kind", EXCHANGES)
    @pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"])
    async def test_an_outage_is_tried_again(self, gcp, make_gcp, logins, kind, code):
        gcp.fail(EXCHANGES[kind], code)
        await make_gcp(login=logins[kind][0]).observe([], mark=ME)
        assert operations(gcp) == {EXCHANGES[kind]: 2, "ListSecrets": 1}

    @pytest.mark.parametrize("kind", EXCHANGES)
    async def test_an_outage_that_lasts_is_told(self, gcp, make_gcp, logins, kind):
        gcp.fail(EXCHANGES[kind], "UNAVAILABLE", times=9)
        with pytest.raises(RetryableError) as raised:
            await make_gcp(login=logins[kind][0]).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE
        assert operations(gcp) == {EXCHANGES[kind]: 3}

    async def test_a_wish_to_wait_is_told_on(self, gcp, make_gcp):
        gcp.fail(KEY, "RESOURCE_EXHAUSTED", retry_after=60)
        with pytest.raises(RetryableError) as raised:
            await make_gcp().observe([], mark=ME)
        assert (raised.value.reason, raised.value.retry_after) == (Reason.RATE_LIMITED, 60.0)

    async def test_an_answer_that_is_no_token_is_told(self, make_gcp):
        """A broken proxy answers 200 with a page."""

        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(RetryableError) as raised:
                await make_gcp(login=GcpMetadata(host)).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE


class TestMetadata:
    async def test_a_workload_without_an_identity_is_told(self, gcp, make_gcp):
        gcp.workload(None)
        try:
            with pytest.raises(PermanentError, match="bind the controller's service account") as raised:
                await make_gcp(login=GcpMetadata(gcp.metadata_host)).observe([], mark=ME)
        finally:
            gcp.workload(WORKLOAD)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    async def test_outside_of_google_cloud_the_other_ways_are_named(self, make_gcp):
        with pytest.raises(RetryableError, match="GOOGLE_APPLICATION_CREDENTIALS") as raised:
            await make_gcp(login=GcpMetadata("127.0.0.1:9")).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE


class TestFederation:
    @pytest.mark.parametrize(
        ("token", "kind", "text"),
        [
            pytest.param("garbage", PermanentError, "invalid_grant.*workload identity provider", id="garbage"),
            pytest.param(projected(audience="api"), PermanentError, "must have its audience", id="another audience"),
            pytest.param(projected()[:-4] + "AAAA", PermanentError, "invalid_grant", id="forged"),
            pytest.param(projected(lifetime=-1), RetryableError, "has expired; check the kubelet", id="expired"),
            pytest.param("", RetryableError, "holds no token", id="empty"),
            pytest.param("two words", RetryableError, "holds no token", id="no token"),
        ],
    )
    async def test_a_token_that_is_not_taken_is_told(self, make_gcp, configuration, token_file, token, kind, text):
        token_file.write_text(token)
        with pytest.raises(kind, match=text) as raised:
            await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert not token or token not in str(raised.value)

    async def test_a_token_in_a_json_document_is_found(self, gcp, make_gcp, configuration, token_file):
        document = json.loads(configuration.read_text())
        document["credential_source"]["format"] = {"type": "json", "subject_token_field_name": "access"}
        configuration.write_text(json.dumps(document))
        token_file.write_text(json.dumps({"access": projected()}))
        await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert operations(gcp)[FEDERATION] == 1

    async def test_a_provider_that_is_not_there_is_told(self, make_gcp, configuration):
        document = json.loads(configuration.read_text())
        configuration.write_text(json.dumps(document | {"audience": "//iam.googleapis.com/projects/1/other"}))
        with pytest.raises(PermanentError, match="invalid_target") as raised:
            await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    @pytest.fixture(params=["configuration", "token_file"])
    def incomplete(self, request, configuration):
        request.getfixturevalue(request.param).unlink()
        return configuration

    async def test_a_file_that_is_missing_is_told(self, make_gcp, incomplete):
        with pytest.raises(RetryableError, match=r"cannot be read \(FileNotFoundError\)") as raised:
            await make_gcp(login=GcpFederation(incomplete)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    @pytest.mark.parametrize("source", [{"url": "http://169.254.169.254/"}, {"executable": {"command": "id"}}, None])
    async def test_a_token_that_is_in_no_file_is_told(self, make_gcp, configuration, source):
        document = json.loads(configuration.read_text())
        configuration.write_text(json.dumps(document | {"credential_source": source}))
        with pytest.raises(PermanentError, match="--credential-source-file") as raised:
            await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    @pytest.mark.parametrize("content", ["no JSON", "{}", "[]"])
    async def test_a_document_without_the_token_is_told(self, make_gcp, configuration, token_file, content):
        document = json.loads(configuration.read_text())
        document["credential_source"]["format"] = {"type": "json", "subject_token_field_name": "access"}
        configuration.write_text(json.dumps(document))
        token_file.write_text(content)
        with pytest.raises(RetryableError, match="holds no token"):
            await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)

    async def test_a_key_in_its_place_is_told(self, gcp, make_gcp, configuration):
        configuration.write_bytes(gcp.key.document)
        with pytest.raises(PermanentError, match="is not of type external_account") as raised:
            await make_gcp(login=GcpFederation(configuration)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE


class TestImpersonation:
    async def test_the_role_that_it_needs_is_named(self, gcp, make_gcp):
        gcp.refuse_impersonation(TARGET)
        login = GcpKey(gcp.key.document, impersonate=TARGET)
        with pytest.raises(PermanentError, match=f"iam.serviceAccountTokenCreator on {TARGET}") as raised:
            await make_gcp(login=login).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED


class TestKeys:
    async def test_its_account_is_who_calls(self, gcp, make_gcp):
        await make_gcp(login=gcp.make_key("other@test-project.iam.gserviceaccount.com")).observe([], mark=ME)
        assert {call.who for call in gcp.calls()} == {"-", "other@test-project.iam.gserviceaccount.com"}

    async def test_a_deleted_one_is_told_without_the_key(self, gcp, make_gcp):
        key = gcp.make_key("other@test-project.iam.gserviceaccount.com")
        gcp.remove_key(key)
        key_id = json.loads(key.document)["private_key_id"]
        with pytest.raises(PermanentError, match=f"…{key_id[-6:]} of other@.*invalid_grant.*make a new key") as raised:
            await make_gcp(login=key).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE

    async def test_one_that_was_replaced_in_its_file_is_used_at_the_next_renewal(self, gcp, make_gcp, tmp_path):
        file = tmp_path / "key.json"
        file.write_bytes(gcp.key.document)
        provider = make_gcp(login=GcpKeyFile(file))
        await provider.observe([], mark=ME)
        file.write_bytes(gcp.make_key("other@test-project.iam.gserviceaccount.com").document)
        gcp.expire_tokens()
        gcp.clear_calls()
        await provider.observe([], mark=ME)
        assert [call.who for call in gcp.calls()][-1] == "other@test-project.iam.gserviceaccount.com"

    async def test_the_addresses_in_it_are_not_used(self, gcp, make_gcp):
        """Whoever writes the Secret would choose where the controller sends requests to."""
        key = altered(gcp.key, token_uri="http://127.0.0.1:9/token", auth_uri="http://127.0.0.1:9")
        await make_gcp(login=key).observe([], mark=ME)
        assert operations(gcp) == {KEY: 1, "ListSecrets": 1}

    @pytest.mark.parametrize(
        ("document", "text"),
        [
            pytest.param(b"", "is no JSON object", id="empty"),
            pytest.param(b"[]", "is no JSON object", id="a list"),
            pytest.param(b'{"type": "authorized_user", "refresh_token": "s3cr3t"}', "not of type service_account"),
            pytest.param(b'{"type": "external_account", "credential_source": {"url": "http://x"}}', "not of type"),
            pytest.param(b'{"type": "service_account"}', "client_email is missing"),
        ],
    )
    async def test_what_is_no_key_is_told(self, gcp, make_gcp, document, text):
        with pytest.raises(PermanentError, match=text) as raised:
            await make_gcp(login=GcpKey(document)).observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert "s3cr3t" not in str(raised.value)
        assert gcp.calls() == []

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            pytest.param({"private_key": "-----BEGIN PRIVATE KEY-----\ns3cr3t"}, "no RSA key in PEM", id="no PEM"),
            pytest.param({"client_email": "a@b/../c"}, "no email address", id="no email"),
            pytest.param({"private_key_id": 7}, "private_key_id is missing", id="no id"),
        ],
    )
    async def test_what_is_wrong_in_it_is_named_without_its_content(self, gcp, make_gcp, changes, text):
        with pytest.raises(PermanentError, match=text) as raised:
            await make_gcp(login=altered(gcp.key, **changes)).observe([], mark=ME)
        link = raised.value
        while link is not None:
            assert "s3cr3t" not in f"{link!r}"
            link = link.__context__

    async def test_another_universe_has_no_token_endpoint(self, gcp, held):
        """There the key signs the token itself."""
        held._endpoints = GcpEndpoints(universe="s3nsapis.fr")
        token = await held.current()
        claims = tokens.decoded(token.split(".")[1])
        assert (claims["iss"], claims["sub"]) == (SERVICE_ACCOUNT, SERVICE_ACCOUNT)
        assert claims["exp"] > time.time()
        assert gcp.calls() == []


class TestExpiry:
    async def test_a_token_that_expired_early_is_renewed_once(self, gcp, make_gcp):
        provider = make_gcp()
        await provider.observe([], mark=ME)
        gcp.expire_tokens()
        gcp.clear_calls()
        await asyncio.gather(*(provider.observe([], mark=ME) for _ in range(20)))
        assert operations(gcp)[KEY] == 1

    async def test_a_token_that_stays_refused_is_told(self, gcp, make_gcp):
        gcp.fail("ListSecrets", "UNAUTHENTICATED", times=9)
        with pytest.raises(PermanentError, match="check the clock") as raised:
            await make_gcp().observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
        assert operations(gcp) == {KEY: 2, "ListSecrets": 2}

    async def test_a_key_that_was_revoked_meanwhile_is_told(self, gcp, make_gcp):
        key = gcp.make_key("other@test-project.iam.gserviceaccount.com")
        provider = make_gcp(login=key)
        await provider.observe([], mark=ME)
        gcp.remove_key(key)
        gcp.expire_tokens()
        with pytest.raises(PermanentError, match="make a new key") as raised:
            await provider.observe([], mark=ME)
        assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE


class TestRenewal:
    async def test_a_token_is_kept_as_long_as_it_holds(self, held, clock):
        first = await held.current()
        clock.now += 3600 - RENEW_BEFORE - 1
        assert await held.current() == first

    async def test_it_is_renewed_before_it_expires(self, gcp, held, clock):
        first = await held.current()
        clock.now += 3600 - RENEW_BEFORE
        later = await asyncio.gather(*(held.current() for _ in range(20)))
        assert later[0] != first
        assert set(later) == {later[0]}
        assert operations(gcp) == {KEY: 2}

    async def test_one_that_is_handed_out_near_its_end_is_not_asked_for_at_every_request(self, gcp, held, clock):
        gcp.token_lifetime(100.0)
        await held.current()
        clock.now += RENEW_AGAIN - 1
        await held.current()
        assert operations(gcp) == {KEY: 1}
        clock.now += 1
        await held.current()
        assert operations(gcp) == {KEY: 2}

    async def test_an_outage_while_it_holds_goes_unnoticed(self, gcp, held, clock):
        first = await held.current()
        gcp.fail(KEY, "UNAVAILABLE", times=2)
        clock.now += 3600 - RENEW_BEFORE
        assert await held.current() == first
        assert await held.current() == first  # The next attempt is due in half a minute.
        clock.now += RENEW_AGAIN
        assert await held.current() == first
        clock.now += RENEW_AGAIN
        assert await held.current() != first
        assert operations(gcp) == {KEY: 4}

    async def test_an_outage_when_it_is_over_is_told(self, gcp, held, clock):
        await held.current()
        gcp.fail(KEY, "UNAVAILABLE")
        clock.now += 3600
        with pytest.raises(RetryableError) as raised:
            await held.current()
        assert raised.value.reason is Reason.STORE_UNAVAILABLE

    async def test_a_failed_login_is_not_remembered(self, gcp, held):
        gcp.fail(KEY, "PERMISSION_DENIED")
        with pytest.raises(ControllerError):
            await held.current()
        await held.current()


def test_a_refusal_without_an_answer_passes():
    assert GcpRefusal("ConnectionRefusedError", answered=False).passing
