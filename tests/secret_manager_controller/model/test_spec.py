"""The spec as parsed: defaults, both forms, the sentences for mistakes, and what this version cannot do."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from secret_manager_controller.errors import FOREIGN_TEXT_LIMIT, ConfigError, Reason
from secret_manager_controller.model.spec import (
    Adoption,
    AwsAuthType,
    AzureAuthType,
    DeletionPolicy,
    GcpAuthType,
    OtelType,
    OtlpProtocol,
    ProviderType,
    SourceKind,
    UpdatePolicy,
    deprecations,
    parse_spec,
)

MINIMAL = {
    "sourceRef": {"name": "repo"},
    "provider": {"type": "aws", "aws": {}},
    "secrets": {"environment": "dev"},
}
AZURE = {"vaultName": "my-vault"}
GCP = {"projectId": "my-project"}


def parse(changes=None, *, without=()):
    spec = {name: value for name, value in (MINIMAL | (changes or {})).items() if name not in without}
    return parse_spec({"metadata": {"name": "x"}, "spec": spec})


def refusal(changes=None, *, without=()):
    with pytest.raises(ConfigError) as caught:
        parse(changes, without=without)
    assert caught.value.reason is Reason.INVALID_SPEC
    return caught.value.message


def test_a_minimal_spec_has_every_default():
    spec = parse()
    assert spec.source_ref.kind is SourceKind.GIT_REPOSITORY
    assert (spec.source_ref.name, spec.source_ref.namespace) == ("repo", None)
    assert spec.require_verified_source is False
    assert spec.provider.type is ProviderType.AWS
    assert spec.provider.aws.region == "us-east-1"
    assert spec.provider.auth is None
    assert spec.secrets.model_dump() == {
        "environment": "dev",
        "kustomize_path": None,
        "base_path": None,
        "prefix": None,
        "suffix": None,
    }
    assert (spec.interval, spec.interval_seconds) == ("5m", 300.0)
    assert (spec.suspend, spec.prune) == (False, False)
    assert spec.deletion_policy is DeletionPolicy.ORPHAN
    assert spec.update_policy is UpdatePolicy.REPLACE
    assert spec.adoption is Adoption.FAIL
    assert spec.otel is None


def test_the_references_aws_example_reads_as_it_says():
    spec = parse_spec(
        {
            "spec": {
                "sourceRef": {"kind": "GitRepository", "name": "my-repo", "namespace": "microscaler-system"},
                "provider": {
                    "type": "aws",
                    "aws": {
                        "region": "eu-central-1",
                        "auth": {
                            "authType": "AccessKeys",
                            "secretName": "aws-secret-manager-credentials",
                            "secretNamespace": "flux-system",
                            "accessKeyIdKey": "id",
                        },
                    },
                },
                "secrets": {
                    "environment": "dev",
                    "basePath": "microservices",
                    "prefix": "my-service",
                    "suffix": "-prod",
                },
            }
        }
    )
    auth = spec.provider.auth
    assert auth.auth_type is AwsAuthType.ACCESS_KEYS
    assert (auth.secret_name, auth.secret_namespace) == ("aws-secret-manager-credentials", "flux-system")
    assert (auth.access_key_id_key, auth.secret_access_key_key, auth.session_token_key) == (
        "id",
        "secret-access-key",
        None,
    )
    assert spec.provider.aws.region == "eu-central-1"
    assert (spec.secrets.base_path, spec.secrets.prefix, spec.secrets.suffix) == (
        "microservices",
        "my-service",
        "-prod",
    )


@pytest.mark.parametrize(
    ("block", "name", "auth_type"),
    [
        pytest.param(
            {"gcp": GCP | {"auth": {"authType": "JsonCredentials"}}}, "gcp", GcpAuthType.JSON_CREDENTIALS, id="gcp"
        ),
        pytest.param(
            {"gcp": GCP | {"auth": {"type": "WorkloadIdentity", "serviceAccountEmail": "a@b.iam"}}},
            "gcp",
            GcpAuthType.WORKLOAD_IDENTITY,
            id="gcp-old-name-of-the-type",
        ),
        pytest.param({"gcp": GCP | {"auth": {}}}, "gcp", GcpAuthType.WORKLOAD_IDENTITY, id="gcp-no-type"),
        pytest.param({"aws": {"auth": {"type": "AccessKeys"}}}, "aws", AwsAuthType.ACCESS_KEYS, id="aws"),
        pytest.param({"aws": {"auth": {}}}, "aws", AwsAuthType.IRSA, id="aws-no-type"),
        pytest.param(
            {"azure": AZURE | {"auth": {"type": "ServicePrincipal", "secretName": "login"}}},
            "azure",
            AzureAuthType.SERVICE_PRINCIPAL,
            id="azure",
        ),
        pytest.param({"azure": AZURE | {"auth": {}}}, "azure", AzureAuthType.WORKLOAD_IDENTITY, id="azure-no-type"),
    ],
)
def test_a_store_at_the_top_is_the_same_as_one_in_provider(block, name, auth_type):
    short = parse(block, without=["provider"])
    long = parse({"provider": {"type": name, **block}})
    assert short.provider == long.provider
    assert short.provider.type is ProviderType(name)
    assert short.provider.auth.auth_type is auth_type


def test_every_block_of_every_later_issue_is_read():
    spec = parse(
        {
            "sourceRef": {"kind": "Application", "name": "a", "sourceName": "b", "gitCredentials": {"secretName": "c"}},
            "requireVerifiedSource": True,
            "provider": {
                "type": "gcp",
                "gcp": GCP
                | {
                    "replication": {"userManaged": {"replicas": [{"location": "europe-west1"}]}},
                    "labels": {"team": "a"},
                    "keepVersions": 3,
                },
            },
            "otel": {
                "type": "Otlp",
                "endpoint": "https://collector.example:4318/v1/traces",
                "protocol": "http/protobuf",
                "headersSecretRef": {"name": "headers"},
                "caSecretRef": {"name": "ca"},
                "recordNames": True,
            },
        }
    )
    assert spec.source_ref.git_credentials.secret_name == "c"
    assert [replica.location for replica in spec.provider.gcp.replication.user_managed.replicas] == ["europe-west1"]
    assert (spec.provider.gcp.keep_versions, spec.provider.gcp.labels) == (3, {"team": "a"})
    assert (spec.otel.type, spec.otel.protocol) == (OtelType.OTLP, OtlpProtocol.HTTP_PROTOBUF)
    assert (spec.otel.service_name, spec.otel.ca_secret_ref.key) == ("secret-manager-controller", "ca.crt")


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        parse().prune = True


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("10s", 10), ("90s", 90), ("5m", 300), ("5m0s", 300), ("1h30m", 5400), ("1h30m15s", 5415), ("24h", 86_400)],
)
def test_an_interval_is_read_as_go_reads_it(duration, seconds):
    assert parse({"interval": duration}).interval_seconds == seconds


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no-spec"),
        pytest.param({"spec": None}, id="null-spec"),
    ],
)
def test_an_object_without_a_spec_is_refused(body):
    with pytest.raises(ConfigError, match=r"^spec is required; set it$"):
        parse_spec(body)


def test_null_counts_as_absent_and_unknown_fields_are_ignored():
    spec = parse(
        {
            "interval": None,
            "prune": None,
            "otel": None,
            "fromTheFuture": {"a": 1},
            "secrets": {"environment": "dev", "x": 1},
        }
    )
    assert spec == parse()


def test_several_mistakes_are_told_at_once_each_with_its_path():
    message = refusal(
        {"secrets": {"basePath": "/a"}, "interval": 5, "adoption": "Maybe", "prune": "true"}, without=["sourceRef"]
    )
    assert message == (
        "spec.sourceRef is required; set it; "
        "spec.secrets.environment is required; set it; "
        "spec.secrets.basePath must be relative to the source's root: remove the leading '/'; "
        "spec.interval must be a string; put what looks like a number or a boolean into quotes; "
        "spec.prune must be true or false, without quotes; "
        "and 1 more"
    )


def test_a_refused_value_is_in_no_message_and_on_no_cause():
    canary = "CANARY-73f1"
    for changes in (
        {"otel": {"type": "Datadog", "apiKey": canary}},
        {"otel": {"type": canary, "endpoint": canary}},
        {"secrets": {"environment": f"{canary}/x"}, "prune": canary, "interval": canary},
        {"sourceRef": [canary], "provider": canary},
        {"provider": {"type": "azure", "azure": {"vaultName": canary * 9, "expiresOn": "2030-02-30T00:00:00Z"}}},
    ):
        with pytest.raises(ConfigError) as caught:
            parse(changes)
        assert canary not in caught.value.message
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_a_foreign_key_in_a_path_is_cut():
    message = refusal({"provider": {"type": "aws", "aws": {"tags": {"k\n" * 500: 3}}}})
    path = message.removesuffix(" must be a string; put what looks like a number or a boolean into quotes")
    assert path.isprintable()
    assert len(path) == FOREIGN_TEXT_LIMIT


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        pytest.param({"type": "gcp", "gcp": GCP}, None, id="no auth"),
        pytest.param({"type": "gcp", "gcp": GCP | {"auth": {"type": "WorkloadIdentity"}}}, None, id="gcp identity"),
        pytest.param({"type": "aws", "aws": {"auth": {"authType": "Irsa"}}}, None, id="irsa"),
        pytest.param(
            {"type": "gcp", "gcp": GCP | {"auth": {"authType": "JsonCredentials"}}},
            "spec.provider.gcp.auth.authType JsonCredentials is deprecated: such a key holds until somebody replaces it; "
            "use WorkloadIdentity",
            id="json",
        ),
        pytest.param(
            {"type": "aws", "aws": {"auth": {"type": "AccessKeys"}}},
            "spec.provider.aws.auth.authType AccessKeys is deprecated: such a key holds until somebody replaces it; "
            "use Irsa",
            id="keys",
        ),
        pytest.param(
            {"type": "azure", "azure": AZURE | {"auth": {"authType": "ServicePrincipal"}}},
            "spec.provider.azure.auth.authType ServicePrincipal is deprecated: such a key holds until somebody "
            "replaces it; use WorkloadIdentity",
            id="principal",
        ),
    ],
)
def test_a_login_that_has_a_better_successor_is_told(provider, told):
    assert deprecations(parse({"provider": provider})) == (() if told is None else (told,))


def test_the_model_brings_no_client_and_no_yaml_with_it():
    """Every command of msmctl imports the spec, so its import has to stay cheap."""
    code = "import sys, secret_manager_controller.model.spec; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"yaml", "kubernetes", "aiohttp", "boto3", "kopf"} & set(loaded) == set()
