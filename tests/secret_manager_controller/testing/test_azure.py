"""The Azure test server answers as Key Vault and Entra ID do, notes every request, and fails on demand."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.identity import ClientSecretCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient

from secret_manager_controller.testing.azure import AzureServer, federated_token
from secret_manager_controller.testing.servers import ServerError


@pytest.fixture(scope="module")
def running():
    with AzureServer.start() as server:
        yield server


@pytest.fixture
def azure(running):
    running.reset()
    return running


def options(azure):
    return {
        "proxies": {"https": azure.endpoints.proxy},
        "connection_verify": str(azure.endpoints.ca_file),
        "retry_total": 0,
    }


def credential(azure, **changes):
    login = azure.client_secret
    named = {"tenant_id": login.tenant_id, "client_id": login.client_id, "client_secret": login.client_secret}
    return ClientSecretCredential(**(named | changes), **options(azure))


def connect(azure, *, vault=None, login=None):
    """Return a plain client of the SDK: through the proxy, with the vault's real name, verifying the challenge."""
    url = f"https://{vault or azure.vault}.vault.azure.net"
    return SecretClient(url, login or credential(azure), **options(azure))


@pytest.fixture
def client(azure):
    with connect(azure) as client:
        yield client


def refused(call, *arguments, **named):
    """Return status, code and inner code of the refusal of a call."""
    with pytest.raises(HttpResponseError) as raised:
        call(*arguments, **named)
    error = raised.value.error
    return raised.value.status_code, error.code, (error.innererror or {}).get("code")


class TestSet:
    def test_it_takes_value_tags_and_attributes_at_once(self, client):
        client.set_secret("a", "v", tags={"team": "blue"}, content_type="text/plain")
        got = client.get_secret("a")
        assert (got.value, got.properties.tags, got.properties.content_type) == ("v", {"team": "blue"}, "text/plain")
        assert got.properties.recoverable_days == 90

    def test_a_new_version_takes_nothing_over(self, client):
        first = client.set_secret("a", "v", tags={"team": "blue"}, content_type="text/plain").properties.version
        second = client.set_secret("a", "w")
        assert (second.properties.tags, second.properties.content_type) == (None, None)
        assert client.get_secret("a", first).properties.tags == {"team": "blue"}

    def test_a_repetition_is_another_version(self, azure, client):
        for _ in range(2):
            client.set_secret("a", "v")
        assert azure.versions("a") == 2

    def test_names_are_compared_without_case_and_kept(self, client):
        client.set_secret("Db-Url", "v")
        client.set_secret("db-url", "w")
        assert client.get_secret("DB-URL").value == "w"
        assert [each.name for each in client.list_properties_of_secrets()] == ["Db-Url"]

    @pytest.mark.parametrize(
        ("arguments", "kept"),
        [
            pytest.param({"value": "x" * 25_600}, True, id="the largest value"),
            pytest.param({"value": "x" * 25_601}, False, id="a larger one"),
            pytest.param({"value": "ü" * 12_801}, False, id="a larger one in bytes"),
            pytest.param({"name": "a" * 127}, True, id="the longest name"),
            pytest.param({"name": "a" * 128}, False, id="a longer one"),
            pytest.param({"name": "a_b"}, False, id="a name that cannot be"),
            pytest.param({"tags": {f"t{number}": "x" for number in range(15)}}, True, id="fifteen tags"),
            pytest.param({"tags": {f"t{number}": "x" for number in range(16)}}, False, id="sixteen"),
            pytest.param({"tags": {"t": "x" * 257}}, False, id="a tag that is too long"),
            pytest.param({"content_type": "x" * 256}, False, id="a content type that is too long"),
        ],
    )
    def test_limits(self, azure, client, arguments, kept):
        named = {"name": "a", "value": "v"} | arguments
        if kept:
            client.set_secret(**named)
        else:
            assert refused(client.set_secret, **named) == (400, "BadParameter", None)
        assert bool(azure.values()) is kept


class TestGet:
    def test_the_current_version_is_the_last_one(self, client):
        first = client.set_secret("a", "v").properties.version
        client.set_secret("a", "w")
        assert (client.get_secret("a").value, client.get_secret("a", first).value) == ("w", "v")

    def test_what_there_is_not(self, client):
        client.set_secret("a", "v")
        assert refused(client.get_secret, "absent") == (404, "SecretNotFound", None)
        assert refused(client.get_secret, "a", "0" * 32) == (404, "SecretNotFound", None)

    def test_a_disabled_version_is_not_told_and_hides_the_others(self, client):
        client.set_secret("a", "v")
        client.set_secret("a", "w")
        client.update_secret_properties("a", enabled=False)
        assert refused(client.get_secret, "a") == (403, "Forbidden", "SecretDisabled")

    def test_an_edit_changes_what_it_names_and_when(self, azure, client):
        azure.stop_clock()
        before = client.set_secret("a", "v", tags={"team": "blue"}).properties
        azure.pass_time(10)
        after = client.update_secret_properties("a", content_type="text/plain")
        assert (after.tags, after.content_type, after.version) == ({"team": "blue"}, "text/plain", before.version)
        assert after.created_on == before.created_on
        assert (after.updated_on - before.updated_on).seconds == 10
        assert client.update_secret_properties("a", tags={}).tags is None

    def test_an_edit_of_what_there_is_not(self, client):
        assert refused(client.update_secret_properties, "a", tags={}) == (404, "SecretNotFound", None)


class TestLists:
    def test_secrets_come_in_pages_by_name_without_their_version(self, azure, client):
        names = [f"s-{number:02}" for number in range(60)]
        for name in reversed(names):
            azure.put_by_hand(name, b"v", tags={"name": name}, pause=0.0)
        azure.clear_calls()
        listed = list(client.list_properties_of_secrets())
        assert [each.name for each in listed] == names
        assert {each.version for each in listed} == {None}
        assert listed[7].tags == {"name": "s-07"}
        assert Counter(call.operation for call in azure.calls())["GetSecrets"] == 3

    def test_what_is_listed_is_the_current_version(self, azure, client):
        azure.put_by_hand("a", b"v", tags={"n": "1"}, pause=10)
        azure.put_by_hand("a", b"w", tags={"n": "2"})
        (listed,) = client.list_properties_of_secrets()
        current = client.get_secret("a").properties
        assert (listed.tags, listed.created_on) == ({"n": "2"}, current.created_on)

    def test_versions_come_by_their_ids(self, client):
        made = {client.set_secret("a", str(number)).properties.version for number in range(30)}
        listed = [each.version for each in client.list_properties_of_secret_versions("a")]
        assert listed == sorted(made)

    def test_versions_of_what_there_is_not(self, client):
        assert list(client.list_properties_of_secret_versions("absent")) == []

    def test_more_than_25_a_page_are_refused(self, client):
        assert refused(list, client.list_properties_of_secrets(max_page_size=26)) == (400, "BadParameter", None)

    def test_a_listing_can_be_frozen(self, azure, client):
        client.set_secret("a", "v")
        azure.stale_listing(True)
        client.set_secret("b", "v")
        assert [each.name for each in client.list_properties_of_secrets()] == ["a"]
        azure.stale_listing(False)
        assert [each.name for each in client.list_properties_of_secrets()] == ["a", "b"]


class TestDeletion:
    @pytest.fixture(autouse=True)
    def _created(self, client):
        client.set_secret("a", "v", tags={"team": "blue"})
        client.set_secret("a", "w", tags={"team": "red"})

    def test_it_blocks_the_name(self, client):
        client.begin_delete_secret("a")
        assert refused(client.set_secret, "a", "x") == (409, "Conflict", "ObjectIsDeletedButRecoverable")
        assert refused(client.get_secret, "a") == (404, "SecretNotFound", None)
        assert refused(client.begin_delete_secret, "a") == (404, "SecretNotFound", None)
        assert list(client.list_properties_of_secrets()) == []
        assert list(client.list_properties_of_secret_versions("a")) == []

    def test_what_was_deleted_is_told(self, client):
        client.begin_delete_secret("a")
        deleted = client.get_deleted_secret("a")
        assert (deleted.name, deleted.properties.tags) == ("a", {"team": "red"})
        assert (deleted.scheduled_purge_date - deleted.deleted_date).days == 90
        assert [each.name for each in client.list_deleted_secrets()] == ["a"]
        assert refused(client.get_deleted_secret, "b") == (404, "SecretNotFound", None)

    def test_all_versions_can_be_recovered(self, azure, client):
        client.begin_delete_secret("a")
        client.begin_recover_deleted_secret("a").wait()
        assert [version.value for version in azure.secrets()["a"].versions] == [b"v", b"w"]
        assert refused(client.begin_recover_deleted_secret, "a") == (404, "SecretNotFound", None)

    def test_purging_is_final(self, client):
        client.begin_delete_secret("a")
        client.purge_deleted_secret("a")
        assert refused(client.get_deleted_secret, "a") == (404, "SecretNotFound", None)
        client.set_secret("a", "anew")

    def test_both_may_take_time(self, azure, client):
        azure.transition(60)
        client.begin_delete_secret("a")
        assert refused(client.get_deleted_secret, "a") == (404, "SecretNotFound", None)
        assert refused(client.set_secret, "a", "x") == (409, "Conflict", "ObjectIsBeingDeleted")
        assert refused(client.begin_recover_deleted_secret, "a") == (409, "Conflict", "ObjectIsBeingDeleted")
        azure.pass_time(60)
        client.begin_recover_deleted_secret("a")
        assert refused(client.get_secret, "a") == (404, "SecretNotFound", None)
        assert refused(client.set_secret, "a", "x") == (409, "Conflict", "ObjectIsBeingRecovered")
        azure.pass_time(60)
        assert client.get_secret("a").value == "w"


class TestLogins:
    def test_a_vault_without_a_token_challenges(self, azure):
        context = ssl.create_default_context(cafile=azure.endpoints.ca_file)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{azure.url}/secrets?api-version=7.4", context=context)
        assert raised.value.code == 401
        tenant = azure.client_secret.tenant_id
        assert raised.value.headers["WWW-Authenticate"] == (
            f'Bearer authorization="https://login.microsoftonline.com/{tenant}", resource="https://vault.azure.net"'
        )
        raised.value.close()

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"client_secret": "wrong"}, "AADSTS7000215"),
            ({"client_id": "22222222-2222-2222-2222-222222222222"}, "AADSTS700016"),
            ({"tenant_id": "11111111-1111-1111-1111-111111111111"}, "AADSTS90002"),
        ],
        ids=["secret", "application", "tenant"],
    )
    def test_a_wrong_client_secret_login_is_refused(self, azure, changes, code):
        with credential(azure, **changes) as login, pytest.raises(ClientAuthenticationError, match=code):
            login.get_token("https://vault.azure.net/.default")

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            pytest.param(federated_token(), None, id="good"),
            pytest.param(federated_token(lifetime=-1), "AADSTS700024", id="expired"),
            pytest.param(federated_token(audience="api"), "AADSTS700212", id="another audience"),
            pytest.param("garbage", "AADSTS50027", id="garbage"),
        ],
    )
    def test_a_federated_token_is_checked(self, azure, tmp_path, token, code):
        file = tmp_path / "token"
        file.write_text(token)
        federation = azure.federation(file)
        named = {"tenant_id": federation.tenant_id, "client_id": federation.client_id, "token_file_path": str(file)}
        with WorkloadIdentityCredential(**named, **options(azure)) as login:
            if code is None:
                with connect(azure, login=login) as client:
                    client.set_secret("a", "v")
                assert azure.writes()[0].who == federation.client_id
            else:
                with pytest.raises(ClientAuthenticationError, match=code):
                    login.get_token("https://vault.azure.net/.default")

    def test_a_token_for_something_else_is_refused(self, azure):
        class Held:
            def get_token(self, *scopes, **_):
                with credential(azure) as login:
                    return login.get_token("https://management.azure.com/.default")

        with connect(azure, login=Held()) as client:
            assert refused(client.get_secret, "a")[:2] == (401, "Unauthorized")

    def test_tokens_can_expire(self, azure, client):
        client.set_secret("a", "v")
        azure.clear_calls()
        azure.expire_tokens()
        assert refused(client.get_secret, "a")[:2] == (401, "Unauthorized")

    def test_an_application_can_come_and_go(self, azure):
        added = azure.add_client("33333333-3333-3333-3333-333333333333", "s3cr3t")
        named = {"client_id": added.client_id, "client_secret": added.client_secret}
        with credential(azure, **named) as login:
            login.get_token("https://vault.azure.net/.default")
        azure.remove_client(added.client_id)
        with credential(azure, **named) as login, pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
            login.get_token("https://vault.azure.net/.default")


class TestVaults:
    def test_each_has_its_own_secrets(self, azure, client):
        azure.add_vault("other-vault")
        client.set_secret("a", "v")
        with connect(azure, vault="other-vault") as other:
            assert list(other.list_properties_of_secrets()) == []

    def test_one_that_there_is_not_has_no_host(self, azure):
        with connect(azure, vault="no-vault") as client, pytest.raises(ServiceRequestError, match="502"):
            client.get_secret("a")


class TestFaults:
    def test_a_failure_is_not_carried_out(self, azure, client):
        azure.fail("SetSecret", "InternalServerError", 500)
        assert refused(client.set_secret, "a", "v") == (500, "InternalServerError", None)
        assert azure.values() == {}
        assert [call.committed for call in azure.writes()] == [False]

    def test_a_lost_answer_is(self, azure, client):
        azure.fail("SetSecret", "InternalServerError", 500, commit=True)
        refused(client.set_secret, "a", "v")
        assert azure.values() == {"a": b"v"}
        assert [call.committed for call in azure.writes()] == [True]

    def test_a_connection_can_break(self, azure, client):
        azure.fail("GetSecret", "none", 0)
        with pytest.raises(AzureError):
            client.get_secret("a")

    def test_throttling_says_how_long(self, azure, client):
        azure.fail("GetSecret", "Throttled", 429, retry_after=7)
        with pytest.raises(HttpResponseError) as raised:
            client.get_secret("a")
        assert raised.value.response.headers["Retry-After"] == "7"

    def test_a_request_can_hang(self, azure, client):
        azure.hang("GetSecret", 0.2)
        began = time.monotonic()
        refused(client.get_secret, "a")
        assert time.monotonic() - began >= 0.2

    def test_one_secret_s_alone_can_fail(self, azure, client):
        azure.fail("SetSecret", "ForbiddenByRbac", 403, name="b")
        client.set_secret("a", "v")
        assert refused(client.set_secret, "b", "v") == (403, "Forbidden", "ForbiddenByRbac")

    def test_faults_can_be_taken_back(self, azure, client):
        azure.fail("SetSecret", "InternalServerError", 500, times=9)
        azure.clear_faults()
        client.set_secret("a", "v")


class TestQuotas:
    def test_more_requests_than_a_vault_takes_are_throttled(self, azure, client):
        list(client.list_properties_of_secrets())
        azure.stop_clock()
        azure.quotas(all=3)
        for _ in range(3):
            list(client.list_properties_of_secrets())
        with pytest.raises(HttpResponseError) as raised:
            list(client.list_properties_of_secrets())
        assert raised.value.status_code == 429
        assert raised.value.response.headers["Retry-After"] == "10"
        azure.pass_time(10)
        list(client.list_properties_of_secrets())

    def test_new_versions_have_a_quota_of_their_own_in_each_vault(self, azure, client):
        azure.add_vault("other-vault")
        azure.stop_clock()
        azure.quotas(sets=1)
        client.set_secret("a", "v")
        assert refused(client.set_secret, "a", "w")[:2] == (429, "Throttled")
        assert client.get_secret("a").value == "v"
        with connect(azure, vault="other-vault") as other:
            other.set_secret("a", "v")


class TestCalls:
    def test_each_request_is_noted_without_its_value(self, azure, client):
        client.set_secret("a", "s3cr3t")
        refused(client.get_secret, "b")
        noted = [call for call in azure.calls() if call.operation in {"SetSecret", "GetSecret"}]
        assert [(call.operation, call.names, call.code) for call in noted] == [
            ("SetSecret", ("a",), "OK"),
            ("GetSecret", ("b",), "SecretNotFound"),
        ]
        assert {call.who for call in noted} == {azure.client_secret.client_id}
        assert abs(noted[0].at - time.time()) < 5
        assert "s3cr3t" not in repr(azure.calls())

    def test_without_tls_there_are_controls_only(self, azure):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{azure.endpoints.proxy}/secrets")
        assert raised.value.code == 404
        raised.value.close()

    def test_an_unknown_control_is_refused(self, azure):
        with pytest.raises(ServerError, match="'_vault' with 404"):
            azure._control("_vault")


class TestProcess:
    @pytest.fixture
    def process(self):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "secret_manager_controller.testing.azure"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as process:
            process.address = json.loads(process.stdout.readline())
            process.took = time.monotonic() - began
            yield process
            process.kill()

    def test_it_prints_its_addresses_and_ends_when_told(self, process):
        assert set(process.address) == {
            "proxy_url", "url", "ca_file", "vault", "tenant_id", "client_id", "client_secret",
        }  # fmt: skip
        assert "127.0.0.1" in process.address["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""
        assert not Path(process.address["ca_file"]).exists()

    def test_it_is_reachable_on_loopback_only(self, process):
        port = int(process.address["url"].rpartition(":")[2])
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        bound = [socket[1] for socket in sockets if socket[3] == "0A"]
        assert [address for address in bound if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
