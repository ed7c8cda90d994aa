"""The Google test server answers as Google does, notes every request, and fails on demand. The SDK's client asks it."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import google_crc32c
import grpc
import pytest
from google.api_core import exceptions
from google.cloud import secretmanager_v1
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from google.rpc import error_details_pb2

from secret_manager_controller.providers import gcp_exchange
from secret_manager_controller.providers.gcp_credentials import read_key
from secret_manager_controller.testing import gcp_auth, gcp_limits
from secret_manager_controller.testing.gcp import GcpServer
from secret_manager_controller.testing.gcp_store import number_of
from secret_manager_controller.testing.servers import ServerError

PARENT = "projects/test-project"
NUMBER = number_of("test-project")
OPTIONS = {"retry": None, "timeout": 5.0}
State = secretmanager_v1.SecretVersion.State


@pytest.fixture(scope="module")
def running():
    with GcpServer.start() as server:
        yield server


@pytest.fixture
def gcp(running):
    running.reset()
    running.token_lifetime(3600.0)
    return running


@pytest.fixture(scope="module")
def token(running):
    key = read_key(running.key.document, where="test")
    return gcp_exchange.by_key(key, url=f"{running.url}/token", roots=None).value


class Client:
    """The SDK's own client, with a token; every method takes the request's fields."""

    def __init__(self, server, token):
        channel = grpc.insecure_channel(server.endpoints.secretmanager.removeprefix("http://"))
        self.channel = channel
        self.client = secretmanager_v1.SecretManagerServiceClient(
            transport=SecretManagerServiceGrpcTransport(channel=channel)
        )
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def __getattr__(self, method):
        call = getattr(self.client, method)
        return lambda **fields: call(request=fields, metadata=self.metadata, **OPTIONS)


@pytest.fixture
def client(gcp, token):
    client = Client(gcp, token)
    yield client
    client.channel.close()


def create(client, name="a", *, parent=PARENT, **fields):
    secret = {"replication": {"automatic": {}}, **fields} if "/locations/" not in parent else fields
    return client.create_secret(parent=parent, secret_id=name, secret=secret)


def add(client, data=b"v", name="a", *, parent=PARENT, crc=None):
    payload = {"data": data} if crc is None else {"data": data, "data_crc32c": crc}
    return client.add_secret_version(parent=f"{parent}/secrets/{name}", payload=payload)


def access(client, version="latest", name="a"):
    return client.access_secret_version(name=f"{PARENT}/secrets/{name}/versions/{version}")


class TestSecrets:
    def test_names_are_told_with_the_project_s_number(self, client):
        assert create(client).name == f"projects/{NUMBER}/secrets/a"
        assert client.get_secret(name=f"projects/{NUMBER}/secrets/a").name == f"projects/{NUMBER}/secrets/a"

    def test_what_was_created_is_read(self, client):
        create(client, labels={"team": "a"}, annotations={"note.x": "Y"})
        secret = client.get_secret(name=f"{PARENT}/secrets/a")
        assert (dict(secret.labels), dict(secret.annotations)) == ({"team": "a"}, {"note.x": "Y"})
        assert secret.etag.startswith('"')
        assert "automatic" in secret.replication

    @pytest.mark.parametrize(
        "replication",
        [
            {"automatic": {"customer_managed_encryption": {"kms_key_name": "k"}}},
            {"user_managed": {"replicas": [{"location": "europe-west1"}, {"location": "europe-west4"}]}},
        ],
        ids=["automatic with a key", "places"],
    )
    def test_the_replication_is_kept(self, client, replication):
        create(client, replication=replication)
        assert client.get_secret(name=f"{PARENT}/secrets/a").replication == secretmanager_v1.Replication(replication)

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("a.b", {}),
            ("", {}),
            ("x" * 256, {}),
            ("a", {"labels": {"Team": "a"}}),
            ("a", {"labels": {"team": "A"}}),
            ("a", {"labels": {"team": "x" * 64}}),
            ("a", {"labels": {f"l{number}": "" for number in range(65)}}),
            ("a", {"annotations": {"a/b": ""}}),
            ("a", {"annotations": {"a": "x" * 16_384}}),
            ("a", {"version_aliases": {"latest": 1}}),
            ("a", {"replication": {}}),
            ("a", {"replication": {"user_managed": {"replicas": []}}}),
        ],
    )
    def test_what_cannot_be_is_refused(self, client, name, fields):
        with pytest.raises(exceptions.InvalidArgument):
            create(client, name, **fields)

    def test_a_name_exists_once(self, client):
        create(client)
        with pytest.raises(exceptions.AlreadyExists):
            create(client)

    def test_an_update_replaces_the_fields_of_its_mask_and_the_etag(self, client):
        before = create(client, labels={"x": "1"}, annotations={"k": "v"})
        after = client.update_secret(
            secret={"name": before.name, "labels": {"y": "2"}, "annotations": {"z": "3"}},
            update_mask={"paths": ["labels"]},
        )
        assert (dict(after.labels), dict(after.annotations)) == ({"y": "2"}, {"k": "v"})
        assert after.etag != before.etag

    @pytest.mark.parametrize("paths", [[], ["replication"], ["name"], ["labels", "nothing"]])
    def test_a_mask_of_what_cannot_change_is_refused(self, client, paths):
        name = create(client).name
        with pytest.raises(exceptions.InvalidArgument):
            client.update_secret(secret={"name": name}, update_mask={"paths": paths})

    @pytest.mark.parametrize(
        ("replication", "taken"),
        [
            ({"automatic": {"customer_managed_encryption": {"kms_key_name": "k"}}}, True),
            ({"user_managed": {"replicas": [{"location": "europe-west1"}]}}, False),
        ],
        ids=["another key", "other places"],
    )
    def test_of_a_replication_only_the_keys_can_be_changed(self, client, replication, taken):
        name = create(client).name
        change = {"secret": {"name": name, "replication": replication}, "update_mask": {"paths": ["replication"]}}
        if taken:
            assert client.update_secret(**change).replication.automatic.customer_managed_encryption.kms_key_name == "k"
        else:
            with pytest.raises(exceptions.InvalidArgument):
                client.update_secret(**change)

    def test_an_old_etag_is_refused(self, gcp, client):
        old = create(client)
        new = client.update_secret(secret={"name": old.name, "etag": old.etag}, update_mask={"paths": ["labels"]})
        with pytest.raises(exceptions.FailedPrecondition):
            client.update_secret(secret={"name": old.name, "etag": old.etag}, update_mask={"paths": ["labels"]})
        with pytest.raises(exceptions.FailedPrecondition):
            client.delete_secret(name=old.name, etag=old.etag)
        client.delete_secret(name=old.name, etag=new.etag)
        assert gcp.secrets() == {}

    def test_a_new_version_leaves_the_secret_s_etag(self, client):
        before = create(client)
        add(client)
        assert client.get_secret(name=before.name).etag == before.etag

    def test_what_is_not_there_is_not_found(self, client):
        for call in (client.get_secret, client.delete_secret, client.get_secret_version):
            suffix = "/versions/1" if call == client.get_secret_version else ""
            with pytest.raises(exceptions.NotFound):
                call(name=f"{PARENT}/secrets/a{suffix}")
        with pytest.raises(exceptions.NotFound):
            add(client)

    def test_regional_secrets_are_others(self, gcp, client):
        place = f"{PARENT}/locations/europe-west1"
        assert create(client, parent=place).name == f"projects/{NUMBER}/locations/europe-west1/secrets/a"
        add(client, parent=place)
        assert list(client.list_secrets(parent=PARENT)) == []
        assert [secret.name.rpartition("/")[2] for secret in client.list_secrets(parent=place)] == ["a"]
        with pytest.raises(exceptions.InvalidArgument):
            client.create_secret(parent=place, secret_id="b", secret={"replication": {"automatic": {}}})
        assert gcp.secrets() == {}

    def test_a_project_that_is_not_there_is_denied(self, client):
        with pytest.raises(exceptions.PermissionDenied) as raised:
            client.get_secret(name="projects/other/secrets/a")
        assert raised.value.reason == "CONSUMER_INVALID"


class TestVersions:
    def test_they_are_numbered_and_the_newest_is_latest(self, client):
        create(client)
        numbers = [add(client, value).name.rpartition("/")[2] for value in (b"v", b"w", b"v")]
        assert numbers == ["1", "2", "3"]
        assert [access(client, version).payload.data for version in ("1", "2", "latest")] == [b"v", b"w", b"v"]
        assert client.get_secret_version(name=f"{PARENT}/secrets/a/versions/latest").name.endswith("/versions/3")

    def test_checksums_go_both_ways(self, client):
        create(client)
        assert add(client, crc=google_crc32c.value(b"v")).client_specified_payload_checksum
        assert not add(client).client_specified_payload_checksum
        assert access(client).payload.data_crc32c == google_crc32c.value(b"v")
        with pytest.raises(exceptions.InvalidArgument):
            add(client, crc=1)

    @pytest.mark.parametrize(("size", "taken"), [(0, False), (1, True), (65_536, True), (65_537, False)])
    def test_a_value_has_its_limits(self, gcp, client, size, taken):
        create(client)
        try:
            add(client, b"x" * size)
        except exceptions.InvalidArgument:
            assert not taken
        assert gcp.versions("a") == int(taken)

    @pytest.mark.parametrize("state", [State.DISABLED, State.DESTROYED])
    def test_what_is_disabled_or_destroyed_stays_latest_and_cannot_be_read(self, client, state):
        create(client)
        add(client)
        name = add(client, b"w").name
        change = client.disable_secret_version if state is State.DISABLED else client.destroy_secret_version
        assert change(name=name).state is state
        with pytest.raises(exceptions.FailedPrecondition):
            access(client)
        assert client.get_secret_version(name=f"{PARENT}/secrets/a/versions/latest").state is state
        assert access(client, "1").payload.data == b"v"

    def test_what_is_disabled_can_be_enabled_and_what_is_destroyed_cannot(self, client):
        create(client)
        name = add(client).name
        old = client.disable_secret_version(name=name).etag
        client.enable_secret_version(name=name)
        with pytest.raises(exceptions.FailedPrecondition):
            client.destroy_secret_version(name=name, etag=old)
        assert access(client).payload.data == b"v"
        client.destroy_secret_version(name=name)
        with pytest.raises(exceptions.FailedPrecondition):
            client.enable_secret_version(name=name)

    def test_a_secret_without_a_version_has_no_latest(self, client):
        create(client)
        with pytest.raises(exceptions.NotFound):
            access(client)

    def test_an_alias_names_a_version(self, client):
        name = create(client).name
        add(client)
        add(client, b"w")
        client.update_secret(
            secret={"name": name, "version_aliases": {"stable": 1}}, update_mask={"paths": ["version_aliases"]}
        )
        assert access(client, "stable").payload.data == b"v"


class TestLists:
    def test_pages_are_followed_newest_first(self, gcp, client):
        for number in range(7):
            create(client, f"s-{number}")
        gcp.clear_calls()
        names = [secret.name.rpartition("/")[2] for secret in client.list_secrets(parent=PARENT, page_size=3)]
        assert names == [f"s-{number}" for number in reversed(range(7))]
        assert [call.operation for call in gcp.calls()] == ["ListSecrets"] * 3

    def test_the_total_is_told_without_a_filter_only(self, client):
        create(client, labels={"x": "1"})
        create(client, "b")
        assert client.list_secrets(parent=PARENT).total_size == 2
        filtered = client.list_secrets(parent=PARENT, filter="labels.x=1")
        assert (filtered.total_size, [secret.name[-1] for secret in filtered.secrets]) == (0, ["a"])

    def test_versions_are_listed_by_state(self, client):
        create(client)
        for value in (b"v", b"w", b"x"):
            add(client, value)
        client.disable_secret_version(name=f"{PARENT}/secrets/a/versions/2")
        listed = client.list_secret_versions(parent=f"{PARENT}/secrets/a", filter="state:ENABLED")
        assert [version.name.rpartition("/")[2] for version in listed] == ["3", "1"]

    @pytest.mark.parametrize("fields", [{"filter": "labels.x="}, {"page_token": "x"}, {"page_size": -1}])
    def test_what_cannot_be_read_is_refused(self, client, fields):
        with pytest.raises(exceptions.InvalidArgument):
            client.list_secrets(parent=PARENT, **fields)


class TestCallers:
    @pytest.mark.parametrize("token", [None, "wrong"])
    def test_who_has_no_token_is_refused(self, gcp, token):
        stranger = Client(gcp, token)
        with pytest.raises(exceptions.Unauthenticated):
            create(stranger)
        stranger.channel.close()
        assert [(call.who, call.code, call.committed) for call in gcp.calls()] == [("-", "UNAUTHENTICATED", False)]

    def test_an_open_server_lets_everybody_in(self):
        with GcpServer.start(open_to_all=True, projects=["other"]) as server:
            stranger = Client(server, None)
            create(stranger, parent="projects/other")
            stranger.channel.close()
            assert [call.who for call in server.calls()] == ["-"]

    def test_a_token_holds_for_its_lifetime(self, gcp):
        gcp.token_lifetime(0.0)
        key = read_key(gcp.key.document, where="test")
        late = Client(gcp, gcp_exchange.by_key(key, url=f"{gcp.url}/token", roots=None).value)
        with pytest.raises(exceptions.Unauthenticated):
            create(late)
        late.channel.close()

    @pytest.mark.parametrize(
        ("path", "form", "error"),
        [
            ("/token", {"grant_type": "password"}, "unsupported_grant_type"),
            ("/token", {"grant_type": gcp_auth.JWT_BEARER, "assertion": "x"}, "invalid_grant"),
            ("/v1/token", {"grant_type": "password"}, "unsupported_grant_type"),
            ("/v1/token", {"grant_type": gcp_auth.TOKEN_EXCHANGE}, "invalid_target"),
        ],
    )
    def test_what_is_no_exchange_is_refused(self, gcp, path, form, error):
        refusal = gcp_exchange._post_form(f"{gcp.url}{path}", form, None)
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", error)

    @pytest.mark.parametrize("path", ["/", "/v1/projects/-/serviceAccounts/a:other", "/computeMetadata/v1/"])
    def test_there_is_nothing_elsewhere(self, gcp, path):
        assert gcp_exchange._fetch("GET", f"{gcp.url}{path}", {}, b"", None).code == "NOT_FOUND"

    def test_the_metadata_server_asks_for_its_header(self, gcp):
        url = f"{gcp.url}/computeMetadata/v1/instance/service-accounts/default/token"
        assert gcp_exchange._fetch("GET", url, {}, b"", None).code == "NOT_FOUND"
        assert gcp_exchange._fetch("GET", url, {"Metadata-Flavor": "Google"}, b"", None)["token_type"] == "Bearer"


class TestFaults:
    def test_a_fault_meets_so_many_requests_and_is_noted(self, gcp, client):
        gcp.fail("CreateSecret", "UNAVAILABLE", times=2)
        for _ in range(2):
            with pytest.raises(exceptions.ServiceUnavailable):
                create(client)
        create(client)
        assert [(call.code, call.committed) for call in gcp.calls()] == [("UNAVAILABLE", False)] * 2 + [("OK", True)]

    def test_an_answer_can_be_lost(self, gcp, client):
        gcp.fail("CreateSecret", "UNAVAILABLE", commit=True)
        with pytest.raises(exceptions.ServiceUnavailable):
            create(client)
        assert set(gcp.secrets()) == {"a"}
        assert [(call.code, call.committed) for call in gcp.calls()] == [("UNAVAILABLE", True)]

    def test_a_fault_may_be_for_one_secret_with_reason_and_wish(self, gcp, client):
        gcp.fail("*", "RESOURCE_EXHAUSTED/RATE_LIMIT_EXCEEDED", retry_after=2.5, name="b")
        create(client)
        with pytest.raises(exceptions.ResourceExhausted) as raised:
            create(client, "b")
        assert raised.value.reason == "RATE_LIMIT_EXCEEDED"
        waits = [d for d in raised.value.details if isinstance(d, error_details_pb2.RetryInfo)]
        assert [wait.retry_delay.ToNanoseconds() / 1e9 for wait in waits] == [2.5]

    def test_a_request_can_hang(self, gcp, client):
        gcp.hang("ListSecrets", 0.2)
        began = time.monotonic()
        client.list_secrets(parent=PARENT)
        assert time.monotonic() - began >= 0.2

    def test_a_listing_can_be_stale(self, gcp, client):
        create(client)
        gcp.stale_listing(True)
        create(client, "b")
        assert len(client.list_secrets(parent=PARENT).secrets) == 1
        gcp.stale_listing(False)
        assert len(client.list_secrets(parent=PARENT).secrets) == 2

    def test_latest_can_be_stale_and_numbers_are_not(self, gcp, client):
        create(client)
        add(client)
        gcp.stale_latest(True)
        add(client, b"w")
        assert access(client).payload.data == b"v"
        assert access(client, "2").payload.data == b"w"
        gcp.stale_latest(False)
        assert access(client).payload.data == b"w"

    @pytest.mark.parametrize(
        ("kind", "call"),
        [
            ("reads", lambda client: client.list_secrets(parent=PARENT)),
            ("writes", lambda client: create(client, f"s-{time.monotonic_ns()}")),
            ("accesses", access),
        ],
    )
    def test_quotas_count_in_a_window(self, gcp, client, kind, call):
        gcp.put_by_hand("a", b"v")
        gcp.quotas(**{kind: 2}, window=0.3)
        call(client)
        call(client)
        with pytest.raises(exceptions.ResourceExhausted):
            call(client)
        time.sleep(0.3)
        call(client)

    def test_they_can_be_called_off(self, gcp, client):
        gcp.fail("*", "PERMISSION_DENIED", times=9)
        gcp.clear_faults()
        client.list_secrets(parent=PARENT)


class TestByHand:
    def test_values_and_metadata_are_written_as_a_person_would(self, gcp):
        assert gcp.put_by_hand("a", b"old", labels={"team": "a"}, annotations={"k": "v"}) == "1"
        assert gcp.put_by_hand("a", b"\xff\0") == "2"
        assert gcp.values() == {"a": b"\xff\0"}
        assert (gcp.labels("a"), gcp.annotations("a")) == ({"team": "a"}, {"k": "v"})
        assert (gcp.labels("absent"), gcp.annotations("absent"), gcp.versions("absent")) == ({}, {}, 0)
        assert gcp.calls() == []

    def test_secrets_can_be_empty_changed_and_destroyed(self, gcp):
        gcp.create_empty("empty")
        gcp.put_by_hand("changed", b"v")
        gcp.put_by_hand("gone", b"v")
        gcp.change_version("changed", "DISABLED")
        gcp.change_labels("changed", labels={"x": "1"})
        gcp.destroy("gone")
        assert {name: (s.value, s.states, s.labels) for name, s in gcp.secrets().items()} == {
            "empty": (None, (), {}),
            "changed": (None, ("DISABLED",), {"x": "1"}),
        }

    def test_an_unknown_control_is_refused(self, gcp):
        with pytest.raises(ServerError, match="'absent' with 404"):
            gcp._control("absent")


class TestProcess:
    def test_it_listens_on_loopback_only(self, gcp):
        assert gcp.url.startswith("http://127.0.0.1:")
        assert gcp.endpoints.secretmanager.startswith("http://127.0.0.1:")

    def test_it_starts_from_the_command_line_and_ends_when_told(self):
        command = [sys.executable, "-m", "secret_manager_controller.testing.gcp", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            server = GcpServer(json.loads(process.stdout.readline()))
            server.put_by_hand("a", b"v")
            assert server.values() == {"a": b"v"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert process.stderr.read() == b""

    def test_it_ends_with_its_context(self):
        with GcpServer.start() as server:
            url = server.url
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url)


def test_the_server_keeps_its_values_from_the_log(gcp, client):
    create(client)
    add(client, b"s3cr3t")
    assert "s3cr3t" not in repr(gcp.calls())
    assert Counter(call.names for call in gcp.calls()) == {("a",): 2}


def test_quotas_are_off_by_default():
    assert gcp_limits.Quotas() == gcp_limits.Quotas(None, None, None, 60.0)
