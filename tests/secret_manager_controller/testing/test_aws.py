"""The AWS test server answers as AWS does where moto does not, notes every request, and fails on demand."""

import base64
import http.client
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from secret_manager_controller.providers.aws_login import AwsAccessKeys
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.aws_auth import web_identity_token
from secret_manager_controller.testing.servers import ServerError

FIRST, SECOND, THIRD = ("1" * 32, "2" * 32, "3" * 32)
ROLE = "arn:aws:iam::123456789012:role/secrets"


@pytest.fixture(scope="module")
def running():
    with AwsServer.start() as server:
        yield server


@pytest.fixture
def aws(running):
    running.reset()
    return running


@pytest.fixture
def client(aws):
    return aws.client()


def create(client, name="a", value="v", token=FIRST):
    return client.create_secret(Name=name, SecretString=value, ClientRequestToken=token)


def put(client, value, token, *, stages=("AWSCURRENT",), name="a"):
    return client.put_secret_value(
        SecretId=name, SecretString=value, ClientRequestToken=token, VersionStages=list(stages)
    )


def refused(call, *arguments, **options):
    """Return code and HTTP status of the refusal of a call."""
    with pytest.raises(ClientError) as raised:
        call(*arguments, **options)
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


class TestVersions:
    def test_a_moved_label_is_what_reads_return(self, client):
        create(client)
        put(client, "w", SECOND, stages=["PENDING"])
        client.update_secret_version_stage(
            SecretId="a", VersionStage="AWSCURRENT", MoveToVersionId=SECOND, RemoveFromVersionId=FIRST
        )
        assert client.get_secret_value(SecretId="a")["SecretString"] == "w"
        batch = client.batch_get_secret_value(SecretIdList=["a"])["SecretValues"]
        assert [(value["VersionId"], value["SecretString"]) for value in batch] == [(SECOND, "w")]

    def test_previous_follows_current(self, aws, client):
        create(client)
        put(client, "w", SECOND)
        put(client, "x", THIRD)
        assert aws.secrets()["a"].labels == {FIRST: (), SECOND: ("AWSPREVIOUS",), THIRD: ("AWSCURRENT",)}

    def test_other_labels_stay_where_they_are(self, aws, client):
        create(client)
        put(client, "w", SECOND, stages=["AWSCURRENT", "OURS"])
        put(client, "x", THIRD)
        assert aws.secrets()["a"].labels[SECOND] == ("OURS", "AWSPREVIOUS")

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param({"MoveToVersionId": SECOND}, id="without saying where the label is"),
            pytest.param({"MoveToVersionId": SECOND, "RemoveFromVersionId": SECOND}, id="from where it is not"),
            pytest.param(
                {"MoveToVersionId": FIRST, "RemoveFromVersionId": SECOND}, id="to where it is, from elsewhere"
            ),
            pytest.param({"MoveToVersionId": THIRD, "RemoveFromVersionId": FIRST}, id="to a version that is not there"),
            pytest.param({"RemoveFromVersionId": FIRST}, id="to nowhere"),
        ],
    )
    def test_current_moves_only_from_where_the_caller_saw_it(self, aws, client, arguments):
        create(client)
        put(client, "w", SECOND, stages=["PENDING"])
        move = {"SecretId": "a", "VersionStage": "AWSCURRENT", **arguments}
        assert refused(client.update_secret_version_stage, **move) == ("InvalidParameterException", 400)
        assert aws.secrets()["a"].labels == {FIRST: ("AWSCURRENT",), SECOND: ("PENDING",)}

    def test_a_repeated_token_with_the_same_value_does_nothing(self, aws, client):
        create(client)
        put(client, "w", SECOND, stages=["PENDING"])
        answer = put(client, "w", SECOND)
        assert (answer["VersionId"], answer["VersionStages"]) == (SECOND, ["PENDING"])
        assert create(client)["VersionId"] == FIRST
        assert aws.values() == {"a": b"v"}

    def test_a_repeated_token_with_another_value_is_refused(self, client):
        create(client)
        assert refused(put, client, "w", FIRST) == ("ResourceExistsException", 400)
        assert refused(create, client, value="w") == ("ResourceExistsException", 400)

    def test_the_first_version_is_current_whatever_it_is_labelled(self, client):
        client.create_secret(Name="a")
        assert set(put(client, "v", FIRST, stages=["PENDING"])["VersionStages"]) == {"AWSCURRENT", "PENDING"}


class TestDeletion:
    def test_what_is_scheduled_cannot_be_written_read_or_tagged(self, client):
        create(client)
        client.delete_secret(SecretId="a", RecoveryWindowInDays=7)
        refusals = {
            refused(create, client, token=SECOND),
            refused(put, client, "w", SECOND),
            refused(client.get_secret_value, SecretId="a"),
            refused(client.tag_resource, SecretId="a", Tags=[]),
            refused(client.delete_secret, SecretId="a"),
        }
        assert refusals == {("InvalidRequestException", 400)}

    def test_it_can_be_restored_with_its_versions(self, aws, client):
        create(client)
        client.delete_secret(SecretId="a")
        assert aws.values() == {}
        client.restore_secret(SecretId="a")
        assert aws.values() == {"a": b"v"}

    def test_it_is_listed_on_demand(self, client):
        create(client)
        client.delete_secret(SecretId="a")
        assert client.list_secrets()["SecretList"] == []
        (listed,) = client.list_secrets(IncludePlannedDeletion=True)["SecretList"]
        assert listed["DeletedDate"]
        assert listed["SecretVersionsToStages"] == {FIRST: ["AWSCURRENT"]}

    def test_what_is_not_there_is_a_bad_request(self, client):
        assert refused(client.describe_secret, SecretId="a") == ("ResourceNotFoundException", 400)
        assert refused(put, client, "v", FIRST) == ("ResourceNotFoundException", 400)


class TestBatches:
    def test_each_id_has_its_own_error(self, client):
        create(client, "a")
        client.create_secret(Name="empty")
        create(client, "deleted")
        client.delete_secret(SecretId="deleted")
        answer = client.batch_get_secret_value(SecretIdList=["a", "absent", "empty", "deleted"])
        assert [value["Name"] for value in answer["SecretValues"]] == ["a"]
        assert {error["SecretId"]: error["ErrorCode"] for error in answer["Errors"]} == {
            "absent": "ResourceNotFoundException",
            "empty": "ResourceNotFoundException",
            "deleted": "InvalidRequestException",
        }

    def test_a_filter_that_meets_a_secret_without_a_value_is_answered(self, client):
        create(client, "app-a")
        client.create_secret(Name="app-empty")
        answer = client.batch_get_secret_value(Filters=[{"Key": "name", "Values": ["app-"]}])
        assert [value["Name"] for value in answer["SecretValues"]] == ["app-a"]
        assert [error["SecretId"] for error in answer["Errors"]] == ["app-empty"]


class TestLimits:
    @pytest.mark.parametrize(
        ("operation", "parameters"),
        [
            pytest.param("create_secret", {"Name": ""}, id="an empty name"),
            pytest.param("create_secret", {"Name": "x" * 513}, id="a long name"),
            pytest.param("create_secret", {"Name": "a b"}, id="a blank in a name"),
            pytest.param("create_secret", {"Name": "a", "SecretString": ""}, id="an empty value"),
            pytest.param("create_secret", {"Name": "a", "SecretString": "ü" * 32_769}, id="65,538 bytes of text"),
            pytest.param("create_secret", {"Name": "a", "SecretBinary": b"x" * 65_537}, id="65,537 bytes"),
            pytest.param("create_secret", {"Name": "a", "SecretString": "v", "SecretBinary": b"v"}, id="two values"),
            pytest.param("create_secret", {"Name": "a", "ClientRequestToken": "1" * 31}, id="a short token"),
            pytest.param("create_secret", {"Name": "a", "ClientRequestToken": "1" * 65}, id="a long token"),
            pytest.param("create_secret", {"Name": "a", "Tags": [{"Key": "aws:x", "Value": ""}]}, id="AWS's own tag"),
            pytest.param("create_secret", {"Name": "a", "Tags": [{"Key": "k", "Value": "x" * 257}]}, id="a long tag"),
            pytest.param("create_secret", {"Name": "a", "Tags": [{"Key": "k", "Value": "a,b"}]}, id="a comma in a tag"),
            pytest.param(
                "create_secret",
                {"Name": "a", "Tags": [{"Key": str(n), "Value": ""} for n in range(51)]},
                id="more than 50 tags",
            ),
            pytest.param("put_secret_value", {"SecretId": "a"}, id="no value"),
            pytest.param(
                "put_secret_value",
                {"SecretId": "a", "SecretString": "v", "VersionStages": [str(n) for n in range(21)]},
                id="more than 20 labels at once",
            ),
            pytest.param("list_secrets", {"MaxResults": 101}, id="more than 100 a page"),
            pytest.param("list_secrets", {"Filters": [{"Key": "name", "Values": ["a,b"]}]}, id="a comma in a filter"),
            pytest.param("batch_get_secret_value", {"SecretIdList": ["a"] * 21}, id="more than 20 ids"),
            pytest.param("batch_get_secret_value", {}, id="neither ids nor filters"),
            pytest.param("delete_secret", {"SecretId": "a", "RecoveryWindowInDays": 6}, id="a recovery of 6 days"),
        ],
    )
    def test_what_aws_refuses_is_refused(self, aws, client, operation, parameters):
        aws.put_by_hand("a-before", b"v")
        assert refused(getattr(client, operation), **parameters) == ("InvalidParameterException", 400)
        assert aws.values() == {"a-before": b"v"}

    def test_what_aws_just_takes_is_taken(self, client):
        client.create_secret(
            Name="A0/_+=.@-" + "x" * 503,
            SecretString="ü" * 32_768,
            ClientRequestToken="1" * 64,
            Tags=[{"Key": str(n), "Value": "a b_.:/=+-@ü"} for n in range(50)],
        )
        client.create_secret(Name="b", SecretBinary=b"x" * 65_536, ClientRequestToken="1" * 32)

    def test_a_secret_has_a_hundred_versions_of_a_day(self, aws, client):
        create(client)
        for number in range(99):
            put(client, str(number), f"{number:032}")
        assert refused(put, client, "w", THIRD) == ("LimitExceededException", 400)
        assert aws.values() == {"a": b"98"}

    def test_a_secret_has_twenty_labels(self, client):
        create(client)
        put(client, "w", SECOND, stages=[f"L{number}" for number in range(19)])
        assert refused(put, client, "x", THIRD, stages=["L19"]) == ("LimitExceededException", 400)


class TestLogins:
    @pytest.mark.parametrize(
        ("keys", "code"),
        [
            pytest.param(None, "MissingAuthenticationTokenException", id="none"),
            pytest.param(AwsAccessKeys("AKIANOBODY", "x"), "UnrecognizedClientException", id="an unknown key"),
            pytest.param(AwsAccessKeys("AKIAKNOWN", "wrong"), "InvalidSignatureException", id="a wrong secret"),
            pytest.param(
                AwsAccessKeys("AKIAKNOWN", "right", "t"), "UnrecognizedClientException", id="a token of nobody"
            ),
        ],
    )
    def test_a_wrong_login_is_refused(self, aws, keys, code):
        aws.add_access_key("AKIAKNOWN", "right")
        assert refused(aws.client(keys=keys, signed=keys is not None).list_secrets) == (code, 400)

    def test_a_removed_key_is_refused(self, aws):
        client = aws.client(keys=aws.add_access_key("AKIAGONE", "x"))
        client.list_secrets()
        aws.remove_access_key("AKIAGONE")
        assert refused(client.list_secrets) == ("UnrecognizedClientException", 400)

    def test_a_token_opens_a_role(self, aws):
        keys = assume(aws, web_identity_token("system:serviceaccount:a:b"))
        client = aws.client(keys=keys)
        client.list_secrets()
        aws.expire_sessions()
        assert refused(client.list_secrets) == ("ExpiredTokenException", 400)
        assert [(call.operation, call.who, call.code) for call in aws.calls()] == [
            ("AssumeRoleWithWebIdentity", "secrets/smc", "OK"),
            ("ListSecrets", "secrets/smc", "OK"),
            ("ListSecrets", "secrets/smc", "ExpiredTokenException"),
        ]

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            pytest.param("garbage", "InvalidIdentityToken", id="garbage"),
            pytest.param("a.b.c", "InvalidIdentityToken", id="garbage in three parts"),
            pytest.param(web_identity_token("s", audience="x"), "InvalidIdentityToken", id="another audience"),
            pytest.param(web_identity_token("s", lifetime=-1), "ExpiredTokenException", id="expired"),
            pytest.param(web_identity_token("s")[:-5] + "AAAAA", "InvalidIdentityToken", id="forged"),
            pytest.param(web_identity_token("s").rpartition(".")[0] + ".", "InvalidIdentityToken", id="not signed"),
        ],
    )
    def test_a_bad_token_opens_nothing(self, aws, token, code):
        assert refused(assume, aws, token) == (code, 400)

    def test_a_role_that_is_none_is_refused(self, aws):
        assert refused(assume, aws, web_identity_token("s"), role="secrets") == ("ValidationError", 400)


def assume(aws, token, *, role=ROLE):
    answer = aws.client("sts").assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="smc", WebIdentityToken=token
    )
    keys = answer["Credentials"]
    return AwsAccessKeys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])


class TestLog:
    def test_it_tells_who_what_which_when_and_what_came_of_it(self, aws, client):
        before = time.time()
        create(client)
        refused(put, client, "w", SECOND, name="absent")
        client.batch_get_secret_value(SecretIdList=["a", "b"])
        who = aws.access_keys.access_key_id
        told = [(call.number - aws.calls()[0].number, call.who, call.operation, call.names) for call in aws.calls()]
        assert told == [
            (0, who, "CreateSecret", ("a",)),
            (1, who, "PutSecretValue", ("absent",)),
            (2, who, "BatchGetSecretValue", ("a", "b")),
        ]
        assert [(c.code, c.committed) for c in aws.calls()] == [
            ("OK", True),
            ("ResourceNotFoundException", False),
            ("OK", True),
        ]
        assert all(before <= call.at <= time.time() for call in aws.calls())
        assert [call.operation for call in aws.writes()] == ["CreateSecret", "PutSecretValue"]

    def test_it_can_be_emptied(self, aws, client):
        client.list_secrets()
        aws.clear_calls()
        assert aws.calls() == []

    def test_regions_are_apart(self, aws):
        create(aws.client(region="us-east-1"))
        assert aws.values() == {}


class TestFaults:
    def test_an_error_meets_as_many_requests_as_it_says(self, aws, client):
        aws.fail("ListSecrets", "ThrottlingException", 400, times=2)
        assert [refused(client.list_secrets) for _ in range(2)] == [("ThrottlingException", 400)] * 2
        client.list_secrets()

    def test_an_error_can_be_for_one_secret_or_for_all_operations(self, aws, client):
        aws.fail("*", "AccessDeniedException", 400, name="a")
        create(client, "b")
        assert refused(create, client, "a") == ("AccessDeniedException", 400)

    def test_it_can_ask_to_wait(self, aws, client):
        aws.fail("ListSecrets", "ThrottlingException", 400, retry_after=3)
        with pytest.raises(ClientError) as raised:
            client.list_secrets()
        assert raised.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3"

    @pytest.mark.parametrize(("commit", "values"), [(True, {"a": b"v"}), (False, {})])
    def test_a_lost_answer_is_not_a_lost_write(self, aws, client, commit, values):
        aws.fail("CreateSecret", "InternalServiceError", commit=commit)
        assert refused(create, client) == ("InternalServiceError", 500)
        assert aws.values() == values
        assert [(call.code, call.committed) for call in aws.calls()] == [("InternalServiceError", commit)]

    def test_a_connection_can_break_after_the_write(self, aws, client):
        aws.fail("CreateSecret", "reset", 0, commit=True)
        with pytest.raises(ConnectionClosedError):
            create(client)
        assert aws.values() == {"a": b"v"}

    def test_a_request_can_take_long(self, aws, client):
        aws.hang("ListSecrets", 0.2)
        began = time.monotonic()
        client.list_secrets()
        assert time.monotonic() - began >= 0.2

    def test_a_listing_can_be_stale(self, aws, client):
        create(client, "a")
        aws.stale_listing(True)
        put(client, "w", SECOND)
        create(client, "b")
        (listed,) = client.list_secrets()["SecretList"]
        assert (listed["Name"], listed["SecretVersionsToStages"]) == ("a", {FIRST: ["AWSCURRENT"]})
        aws.stale_listing(False)
        assert [each["Name"] for each in client.list_secrets()["SecretList"]] == ["a", "b"]

    def test_they_can_be_called_off(self, aws, client):
        aws.fail("*", "AccessDeniedException", 400, times=9)
        aws.clear_faults()
        client.list_secrets()


class TestByHand:
    @pytest.mark.parametrize("value", [b"text", b"\xff\0"], ids=["text", "binary"])
    def test_values_and_tags_are_written_as_a_person_would(self, aws, value):
        first = aws.put_by_hand("a", b"old", tags={"team": "a"})
        second = aws.put_by_hand("a", value)
        assert aws.values() == {"a": value}
        assert aws.tags("a") == {"team": "a"}
        assert (aws.versions("a"), aws.versions("absent")) == (2, 0)
        assert aws.secrets()["a"].labels == {first: ("AWSPREVIOUS",), second: ("AWSCURRENT",)}
        assert aws.calls() == []

    def test_secrets_can_be_empty_scheduled_and_destroyed(self, aws):
        aws.create_empty("empty")
        aws.put_by_hand("scheduled", b"v")
        aws.put_by_hand("gone", b"v")
        aws.schedule_deletion("scheduled")
        aws.destroy("gone")
        assert {name: (s.value, s.deleted) for name, s in aws.secrets().items()} == {
            "empty": (None, False),
            "scheduled": (b"v", True),
        }

    def test_an_unknown_control_is_refused(self, aws):
        with pytest.raises(ServerError, match="'absent' with 404"):
            aws._control("absent")


class TestProcess:
    def test_it_listens_on_loopback_only(self, aws):
        assert aws.endpoint_url.startswith("http://127.0.0.1:")

    def test_it_starts_from_the_command_line_and_ends_when_told(self):
        command = [sys.executable, "-m", "secret_manager_controller.testing.aws", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            address = json.loads(process.stdout.readline())
            aws = AwsServer(
                address["endpoint_url"], AwsAccessKeys(address["access_key_id"], address["secret_access_key"])
            )
            create(aws.client())
            assert aws.values() == {"a": b"v"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert process.stderr.read() == b""

    def test_it_ends_with_its_context(self):
        with AwsServer.start() as server:
            url = server.endpoint_url
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url)

    def test_a_server_that_does_not_start_tells_its_last_words(self, monkeypatch, tmp_path):
        broken = tmp_path / "secret_manager_controller" / "testing"
        broken.mkdir(parents=True)
        (broken.parent / "__init__.py").write_text("raise SystemExit('no moto here')")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        with pytest.raises(ServerError, match="no moto here"):
            AwsServer.start()


def test_the_server_keeps_its_values_from_the_log(aws, client):
    create(client, value="s3cr3t")
    client.put_secret_value(SecretId="a", SecretBinary=b"s3cr3t")
    noted = repr(aws.calls())
    assert "s3cr3t" not in noted
    assert base64.b64encode(b"s3cr3t").decode() not in noted


def test_a_connection_serves_one_request_after_the_other(aws):
    """As AWS's do; whoever measures a client against this server measures no handshakes."""
    connection = http.client.HTTPConnection(aws.endpoint_url.removeprefix("http://"), timeout=10)
    sockets = set()
    for _ in range(2):
        connection.request("POST", "/_control/faults_left", b"{}")
        assert connection.getresponse().read() == b"0"
        sockets.add(connection.sock)
    connection.close()
    assert len(sockets) == 1
    assert None not in sockets


def test_what_is_not_here_is_refused(aws, client):
    assert refused(aws.client("sqs").list_queues)[1] == 400
    assert refused(client.stop_replication_to_replica, SecretId="a") == ("UnknownOperationException", 400)
