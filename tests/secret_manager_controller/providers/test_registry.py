"""How an object's auth block, its Secret and the controller's environment become a login to AWS."""

from pathlib import Path

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.providers.aws_budget import AwsQuotas
from secret_manager_controller.providers.aws_login import AwsAccessKeys, AwsAssumedRole, AwsEndpoints, AwsWebIdentity
from secret_manager_controller.providers.aws_options import AwsDeclared
from secret_manager_controller.providers.aws_settings import WRITES, aws_login, aws_options
from secret_manager_controller.providers.registry import Login, store_name

ROLE, OTHER_ROLE = "arn:aws:iam::123456789012:role/controller", "arn:aws:iam::123456789012:role/team-a"
IRSA = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_ROLE_ARN": ROLE}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}
SECRET = {"access-key-id": b"AKIASECRET\n", "secret-access-key": b"its-secret", "token": b"its-token", "bad": b"\xff"}
AWS_BODY = {"sourceRef": {"name": "r"}, "aws": {}, "secrets": {"environment": "dev"}}
BY_SECRET = {"authType": "AccessKeys", "secretName": "keys"}


def auth_of(auth):
    aws = {} if auth is None else {"auth": auth}
    body = {"sourceRef": {"name": "r"}, "provider": {"type": "aws", "aws": aws}, "secrets": {"environment": "dev"}}
    return parse_spec({"spec": body}).provider.aws.auth


def identity(role):
    return AwsWebIdentity(role, Path("/var/run/token"), "secret-manager-controller")


def assumed(keys):
    return AwsAssumedRole(OTHER_ROLE, keys, "secret-manager-controller")


@pytest.mark.parametrize(
    ("auth", "secret", "environment", "expected"),
    [
        pytest.param(None, None, IRSA, identity(ROLE), id="nothing said: the controller's role"),
        pytest.param({"roleArn": OTHER_ROLE}, None, IRSA, identity(OTHER_ROLE), id="a role per object"),
        pytest.param({"authType": "Irsa"}, None, IRSA | KEYS, identity(ROLE), id="IRSA before keys"),
        pytest.param(None, None, IRSA | KEYS, identity(ROLE), id="nothing said: IRSA before keys"),
        pytest.param(None, None, KEYS, AwsAccessKeys("AKIAENV", "env-secret"), id="nothing said, on a developer's machine"),
        pytest.param({"authType": "AccessKeys"}, None, IRSA | KEYS, AwsAccessKeys("AKIAENV", "env-secret"), id="keys of the environment"),
        pytest.param({"type": "AccessKeys"}, None, KEYS | {"AWS_SESSION_TOKEN": "t"}, AwsAccessKeys("AKIAENV", "env-secret", "t"), id="the older name, and a session"),
        pytest.param(BY_SECRET, SECRET, KEYS, AwsAccessKeys("AKIASECRET", "its-secret"), id="a Secret before the environment"),
        pytest.param(BY_SECRET | {"sessionTokenKey": "token"}, SECRET, {}, AwsAccessKeys("AKIASECRET", "its-secret", "its-token"), id="a session of a Secret"),
        pytest.param(BY_SECRET | {"roleArn": OTHER_ROLE}, SECRET, IRSA, assumed(AwsAccessKeys("AKIASECRET", "its-secret")), id="a role that a Secret's keys assume"),
        pytest.param({"authType": "AccessKeys", "roleArn": OTHER_ROLE}, None, KEYS, assumed(AwsAccessKeys("AKIAENV", "env-secret")), id="a role that the environment's keys assume"),
        pytest.param(BY_SECRET | {"secretAccessKeyKey": "token"}, SECRET, {}, AwsAccessKeys("AKIASECRET", "its-token"), id="the other data key by name"),
        pytest.param(BY_SECRET | {"accessKeyIdKey": "token"}, SECRET, {}, AwsAccessKeys("its-token", "its-secret"), id="data keys by name"),
    ],
)  # fmt: skip
def test_a_login_is_what_the_object_asks_for(auth, secret, environment, expected):
    assert aws_login(auth_of(auth), secret, environment) == expected


@pytest.mark.parametrize(
    ("auth", "secret", "environment", "told"),
    [
        pytest.param(None, None, {}, "AWS_WEB_IDENTITY_TOKEN_FILE", id="nothing at all"),
        pytest.param(None, None, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "auth.roleArn", id="no role"),
        pytest.param({"authType": "AccessKeys"}, None, {"AWS_ACCESS_KEY_ID": "x"}, "AWS_SECRET_ACCESS_KEY", id="half of a key"),
        pytest.param(BY_SECRET, {"access-key-id": b"x"}, {}, "'secret-access-key'", id="half of a Secret"),
        pytest.param(BY_SECRET | {"accessKeyIdKey": "bad"}, SECRET, {}, "'bad'", id="no text"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(auth, secret, environment, told):
    with pytest.raises(PermanentError) as caught:
        aws_login(auth_of(auth), secret, environment)
    assert caught.value.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert told in caught.value.message
    assert "its-secret" not in caught.value.message


def test_a_login_never_prints_its_secrets():
    for shown in (repr(Login(SECRET)), repr(aws_login(auth_of(BY_SECRET), SECRET, {}))):
        assert "its-secret" not in shown


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ({"type": "aws", "aws": {"region": "eu-west-1"}}, "aws/eu-west-1"),
        ({"type": "gcp", "gcp": {"projectId": "my-project"}}, "gcp/my-project"),
        (
            {"type": "gcp", "gcp": {"projectId": "my-project", "location": "europe-west3"}},
            "gcp/my-project/europe-west3",
        ),
        ({"type": "azure", "azure": {"vaultName": "my-vault"}}, "azure/my-vault"),
        ({"type": "azure", "azure": {"vaultName": "My-Vault"}}, "azure/my-vault"),
    ],
    ids=["aws", "gcp", "gcp-regional", "azure", "azure in another case"],
)
def test_stores_are_told_apart(provider, name):
    body = {"sourceRef": {"name": "r"}, "provider": provider, "secrets": {"environment": "dev"}}
    assert store_name(parse_spec({"spec": body}).provider) == name


def test_an_aws_store_s_options_and_the_environment_become_a_provider_s():
    store = {"region": "eu-west-1", "tags": {"team": "a"}, "description": "d", "kmsKeyId": "alias/a"}
    body = {"sourceRef": {"name": "r"}, "provider": {"type": "aws", "aws": store}, "secrets": {"environment": "dev"}}
    environment = KEYS | {"AWS_ENDPOINT_URL": "https://vpce", "AWS_ENDPOINT_URL_STS": "https://sts", WRITES: "200"}
    options = aws_options(parse_spec({"spec": body}).provider.aws, None, environment)
    assert options == {
        "region": "eu-west-1",
        "login": AwsAccessKeys("AKIAENV", "env-secret"),
        "endpoint_url": AwsEndpoints(secretsmanager="https://vpce", sts="https://sts", kms="https://vpce"),
        "declared": AwsDeclared(tags={"team": "a"}, description="d", kms_key_id="alias/a"),
        "quotas": AwsQuotas(reads=100, writes=200),
    }


def test_the_region_is_us_east_1_by_default():
    assert aws_options(parse_spec({"spec": AWS_BODY}).provider.aws, None, KEYS)["region"] == "us-east-1"


def test_a_quota_that_is_no_number_is_told():
    with pytest.raises(PermanentError, match=f"{WRITES} must be how many requests a second"):
        aws_options(parse_spec({"spec": AWS_BODY}).provider.aws, None, KEYS | {WRITES: "many"})
