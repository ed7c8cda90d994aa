"""Every spec has two judges, `parse_spec` and a real API server, and they come to the same verdict."""

import functools
import json
import re
from copy import deepcopy
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secret_manager_controller.crd import open_api_schema
from secret_manager_controller.errors import ConfigError
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec import parse_spec

NAMESPACE = "crd-verdicts"
OBJECTS = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/secretmanagerconfigs"

AWS, GCP, AZURE = {}, {"projectId": "my-project"}, {"vaultName": "my-vault"}
ROLE = "arn:aws:iam::123456789012:role/secret-manager"


def spec_of(**changes):
    """Return a valid spec with some fields set, or removed by None."""
    base = {"sourceRef": {"name": "repo"}, "provider": {"type": "aws", "aws": {}}, "secrets": {"environment": "dev"}}
    return {name: value for name, value in (base | changes).items() if value is not None}


def secrets(**fields):
    return spec_of(secrets={"environment": "dev"} | fields)


def aws(**fields):
    return spec_of(provider={"type": "aws", "aws": AWS | fields})


def gcp(**fields):
    return spec_of(provider={"type": "gcp", "gcp": GCP | fields})


def azure(**fields):
    return spec_of(provider={"type": "azure", "azure": AZURE | fields})


GOOD = {
    "minimal": spec_of(),
    "every-flux-kind": spec_of(sourceRef={"kind": "OCIRepository", "name": "a.b-c", "namespace": "flux-system"}),
    "application": spec_of(
        sourceRef={"kind": "Application", "name": "a", "sourceName": "b", "gitCredentials": {"secretName": "c"}}
    ),
    "everything-switched": spec_of(
        suspend=True,
        prune=True,
        deletionPolicy="Delete",
        updatePolicy="CreateOnly",
        adoption="Adopt",
        interval="1h30m",
        requireVerifiedSource=True,
    ),
    "shortest-interval": spec_of(interval="10s"),
    "longest-interval": spec_of(interval="24h"),
    "kustomize": secrets(kustomizePath="./microservices/a/deployment-configuration/profiles/dev/"),
    "base-path-at-the-root": secrets(basePath="."),
    "any-affix": secrets(prefix="", suffix="-prod/ä"),
    "aws-keys": aws(auth={"authType": "AccessKeys", "secretName": "login", "sessionTokenKey": "token"}),
    "aws-options": aws(region="us-gov-west-1", auth={"roleArn": ROLE}, kmsKeyId="alias/a", tags={"team": "Ä 1"}),
    "both-names-of-the-login": aws(auth={"authType": "Irsa", "type": "Irsa"}),
    "gcp-key": gcp(auth={"type": "JsonCredentials", "secretName": "login", "secretKey": "k"}),
    "gcp-regional": gcp(location="europe-west1", labels={"team": "a"}, keepVersions=3),
    "gcp-automatic": gcp(replication={"automatic": {}}),
    "gcp-user-managed": gcp(
        replication={"userManaged": {"replicas": [{"location": "europe-west1"}, {"location": "europe-west4"}]}}
    ),
    "azure": azure(auth={"clientId": "12345678-1234-1234-1234-123456789012"}, expiresOn="2030-01-01T00:00:00Z"),
    "gcp-at-the-top": spec_of(provider=None, gcp=GCP | {"auth": {"type": "WorkloadIdentity"}}),
    "aws-at-the-top": spec_of(provider=None, aws=AWS),
    "azure-at-the-top": spec_of(provider=None, azure=AZURE),
    "otlp": spec_of(otel={"type": "Otlp", "endpoint": "http://otel-collector:4317", "environment": "production"}),
    "datadog": spec_of(otel={"type": "Datadog", "site": "datadoghq.com", "apiKeySecretRef": {"name": "datadog"}}),
}

# By name: the spec, the path that both blame, what ours says, and what the API server says where that is its own text.
BAD = {
    "empty": ({}, "spec.sourceRef", "is required", "Required value"),
    "no-environment": (spec_of(secrets={}), "spec.secrets.environment", "is required", "Required value"),
    "no-store": (spec_of(provider=None), "spec.provider", "is needed: the store's type", None),
    "both-forms": (spec_of(aws=AWS), "spec", "must name one store", None),
    "two-at-the-top": (spec_of(provider=None, aws=AWS, gcp=GCP), "spec", "must name one store", None),
    "no-block": (spec_of(provider={"type": "gcp"}), "spec.provider.gcp", "is needed with type gcp", None),
    "other-block": (
        spec_of(provider={"type": "aws", "aws": AWS, "azure": AZURE}),
        "spec.provider.azure",
        "is not the store that provider.type names",
        None,
    ),
    "unknown-store": (spec_of(provider={"type": "vault"}), "spec.provider.type", "must be", "supported values"),
    "no-project": (gcp(projectId=None), "spec.provider.gcp.projectId", "is required", "Required value"),
    "unknown-kind": (
        spec_of(sourceRef={"kind": "HelmChart", "name": "a"}),
        "spec.sourceRef.kind",
        "must be 'GitRepository'",
        'supported values: "GitRepository"',
    ),
    "no-object-name": (spec_of(sourceRef={"name": "A b"}), "spec.sourceRef.name", "must match ^", "should match '^"),
    "source-name-of-flux": (
        spec_of(sourceRef={"name": "a", "sourceName": "b"}),
        "spec.sourceRef.sourceName",
        "is for kind Application",
        None,
    ),
    "credentials-of-flux": (
        spec_of(sourceRef={"name": "a", "gitCredentials": {"secretName": "b"}}),
        "spec.sourceRef.gitCredentials",
        "a Flux source has its own login",
        None,
    ),
    "absolute-path": (secrets(basePath="/etc"), "spec.secrets.basePath", "remove the leading '/'", None),
    "path-outside": (secrets(kustomizePath="a/../../b"), "spec.secrets.kustomizePath", "remove '..'", None),
    "path-only-up": (secrets(basePath=".."), "spec.secrets.basePath", "remove '..'", None),
    "path-with-empty-name": (secrets(basePath="a//b"), "spec.secrets.basePath", "must not have an empty name", None),
    "path-with-backslash": (secrets(basePath="a\\b"), "spec.secrets.basePath", "must match ^", "should match '^"),
    "both-modes": (secrets(basePath="a", kustomizePath="b"), "spec.secrets.basePath", "remove one of the two", None),
    "environment-is-a-path": (
        spec_of(secrets={"environment": "a/b"}),
        "spec.secrets.environment",
        "the name of one directory",
        None,
    ),
    "environment-is-the-parent": (
        spec_of(secrets={"environment": ".."}),
        "spec.secrets.environment",
        "the name of one directory",
        None,
    ),
    "short-interval": (spec_of(interval="9s"), "spec.interval", "must be a duration between 10s and 24h", None),
    "long-interval": (spec_of(interval="24h1s"), "spec.interval", "must be a duration between 10s and 24h", None),
    "interval-without-unit": (spec_of(interval="300"), "spec.interval", "such as 90s, 5m or 1h30m", None),
    "interval-as-number": (spec_of(interval=300), "spec.interval", "must be a string", "must be of type string"),
    "boolean-in-quotes": (spec_of(prune="true"), "spec.prune", "must be true or false", "must be of type boolean"),
    "unknown-policy": (spec_of(deletionPolicy="Retain"), "spec.deletionPolicy", "must be 'Orphan'", "supported values"),
    "two-logins": (
        aws(auth={"authType": "Irsa", "type": "AccessKeys"}),
        "spec.provider.aws.auth.type",
        "says something else",
        None,
    ),
    "secret-of-no-login": (
        aws(auth={"secretName": "login"}),
        "spec.provider.aws.auth.secretName",
        "set authType: AccessKeys",
        None,
    ),
    "secret-of-no-login-gcp": (
        gcp(auth={"type": "WorkloadIdentity", "secretName": "login"}),
        "spec.provider.gcp.auth.secretName",
        "set authType: JsonCredentials",
        None,
    ),
    "no-role": (aws(auth={"roleArn": "my-role"}), "spec.provider.aws.auth.roleArn", "must be a role's ARN", None),
    "tag-of-ours": (aws(tags={f"{GROUP}/owner": "me"}), "spec.provider.aws.tags", "to the owner marks", None),
    "tag-of-ours-azure": (azure(tags={f"{GROUP}_owner": "a"}), "spec.provider.azure.tags", "to the owner marks", None),
    "tag-of-aws": (aws(tags={"aws:a": "b"}), "spec.provider.aws.tags", "do not begin with 'aws:'", None),
    "label-in-capitals": (gcp(labels={"Team": "a"}), "spec.provider.gcp.labels", "lower-case letters", None),
    "label-of-the-mark": (gcp(labels={"smc_owner": "a"}), "spec.provider.gcp.labels", "owner marks", None),
    "vault-is-a-url": (
        azure(vaultName="my-vault.example.com"),
        "spec.provider.azure.vaultName",
        "must be the vault's name alone",
        None,
    ),
    "no-such-day": (
        azure(expiresOn="2030-02-30T00:00:00Z"),
        "spec.provider.azure.expiresOn",
        "must be a date that exists",
        "must be of type date-time",
    ),
    "regional-and-replicated": (
        gcp(location="europe-west1", replication={"automatic": {}}),
        "spec.provider.gcp.replication",
        "remove one of the two",
        None,
    ),
    "replicated-no-way": (gcp(replication={}), "spec.provider.gcp.replication", "must have exactly one of", None),
    "replicated-twice": (
        gcp(replication={"userManaged": {"replicas": [{"location": "europe-west1"}, {"location": "europe-west1"}]}}),
        "spec.provider.gcp.replication.userManaged.replicas",
        "name a location twice",
        None,
    ),
    "replicated-nowhere": (
        gcp(replication={"userManaged": {"replicas": []}}),
        "spec.provider.gcp.replication.userManaged.replicas",
        "must have at least 1 entries",
        "should have at least 1 items",
    ),
    "no-versions": (
        gcp(keepVersions=0),
        "spec.provider.gcp.keepVersions",
        "must be at least 1",
        "should be greater than or equal to 1",
    ),
    "inline-api-key": (
        spec_of(otel={"type": "Datadog", "apiKey": "CANARY-9a31"}),
        "spec.otel.apiKey",
        "name it in apiKeySecretRef",
        None,
    ),
    "otlp-without-endpoint": (spec_of(otel={"type": "Otlp"}), "spec.otel.endpoint", "is needed with type Otlp", None),
    "otlp-with-site": (
        spec_of(otel={"type": "Otlp", "endpoint": "http://a:4317", "site": "datadoghq.com"}),
        "spec.otel.site",
        "is for type Datadog",
        None,
    ),
    "datadog-with-endpoint": (
        spec_of(otel={"type": "Datadog", "endpoint": "http://a:4317"}),
        "spec.otel.endpoint",
        "is for type Otlp",
        None,
    ),
    "password-in-endpoint": (
        spec_of(otel={"type": "Otlp", "endpoint": "http://user:CANARY-9a31@collector:4317"}),
        "spec.otel.endpoint",
        "a login belongs into headersSecretRef",
        None,
    ),
}


@pytest.fixture(scope="module")
def server(smc_plane):
    """Return a function that sends a request to an API server that serves the CRD."""
    smc_plane.request(
        "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    return smc_plane.request


def submit(server, spec):
    """Ask the server to create an object without storing it; return the HTTP status and the answer."""
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "SecretManagerConfig",
        "metadata": {"name": "x", "namespace": NAMESPACE},
        "spec": spec,
    }
    return server("POST", f"{OBJECTS}?dryRun=All", body=body)


def told(spec):
    """Return what `parse_spec` says against a spec, or None."""
    try:
        parse_spec({"spec": spec})
    except ConfigError as error:
        return error.message
    return None


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_a_good_spec_parses(spec):
    assert told(spec) is None


@pytest.mark.parametrize(("spec", "path", "ours", "theirs"), BAD.values(), ids=BAD)
def test_a_bad_spec_does_not_parse(spec, path, ours, theirs):
    message = told(spec)
    assert message.startswith(f"{path} ")
    assert ours in message
    assert "CANARY" not in message


@pytest.mark.real
@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_the_api_server_accepts_a_good_spec_and_its_defaults_are_ours(server, spec):
    status, answer = submit(server, spec)
    assert status == 201, answer
    assert parse_spec({"spec": spec}) == parse_spec(answer)


@pytest.mark.real
@pytest.mark.parametrize(("spec", "path", "ours", "theirs"), BAD.values(), ids=BAD)
def test_the_api_server_refuses_a_bad_spec_with_the_same_words(server, spec, path, ours, theirs):
    status, answer = submit(server, spec)
    assert status == 422, answer
    causes = [cause["message"] for cause in answer["details"]["causes"] if cause["field"] == path]
    assert any((theirs or ours) in cause for cause in causes), answer["details"]["causes"]
    assert "CANARY" not in json.dumps(answer)


def pattern_of(schema):
    """Return the pattern that a text matches as a whole, by the schema's keyword or by a rule, without its anchors."""
    rules = (re.match(r"self\.matches\(r?'\^(.*?)\$'\)", r["rule"]) for r in schema.get("x-kubernetes-validations", ()))
    return next((match[1] for match in rules if match), schema.get("pattern", "^$")[1:-1] or None)


def valid(schema):
    """Return a strategy of values that a structural schema accepts, rules aside."""
    match schema:
        case {"enum": values}:
            return st.sampled_from(values)
        case {"type": "string", "format": "date-time"}:
            times = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2999, 12, 31))  # noqa: DTZ001 - "Z" follows.
            return times.map(lambda time: time.replace(microsecond=0).isoformat() + "Z")
        case {"type": "string"} if (pattern := pattern_of(schema)) is not None:
            texts = st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="utf-8"))
            return texts.filter(lambda text: schema.get("minLength", 0) <= len(text) <= schema["maxLength"])
        case {"type": "string"}:
            return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=20)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            return st.integers(schema["minimum"], schema["maximum"])
        case {"type": "array", "items": items}:
            return st.lists(valid(items), min_size=schema.get("minItems", 0), max_size=3)
        case {"additionalProperties": values}:
            return st.dictionaries(st.text("aZ-_:/.", max_size=4) | st.just("managed-by"), valid(values), max_size=3)
        case {"properties": properties}:
            required = schema.get("required", ())
            return st.fixed_dictionaries(
                {name: valid(inner) for name, inner in properties.items() if name in required},
                optional={name: valid(inner) for name, inner in properties.items() if name not in required},
            )


SPEC_SCHEMA = open_api_schema()["properties"]["spec"]
SCHEMA_VALID = valid(SPEC_SCHEMA)
RULES = {rule["message"] for path, schema in [("", SPEC_SCHEMA)] for rule in schema.get("x-kubernetes-validations", ())}
JUNK = st.sampled_from(
    [None, 0, -1, 1.5, True, "", "x" * 300, "..", "/", "5s", "Application", "aws", [], [None], {}, {"a": 1}]
)


def places(value, path=()):
    """Return the paths of all values in a document, its own left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*path, key), *places(inner, (*path, key)))]


@functools.cache
def valid_at(path):
    """Return a strategy for the value at a path; of no particular kind where the spec has what no schema knows."""
    schema = SPEC_SCHEMA
    for key in path:
        inner = schema.get("items") if isinstance(key, int) else schema.get("properties", {}).get(key)
        schema = inner or schema.get("additionalProperties") or {"type": "boolean"}
    return valid(schema)


@st.composite
def nearly_valid(draw):
    """A spec from the tables above or from the schema, with up to three values replaced or removed."""
    good, bad = st.sampled_from(list(GOOD.values())), st.sampled_from([case[0] for case in BAD.values()])
    spec = deepcopy(draw(st.one_of(good, good.map(deepcopy), bad, SCHEMA_VALID)))
    for _ in range(draw(st.integers(0, 3))):
        found = places(spec)
        if not found:
            break
        path = draw(st.sampled_from(found))
        block = spec
        for key in path[:-1]:
            block = block[key]
        change = draw(st.sampled_from(["same kind", "same kind", "junk", "remove"]))
        if change == "same kind":
            block[path[-1]] = draw(valid_at(path))
        elif change == "junk":
            block[path[-1]] = deepcopy(draw(JUNK))  # The same list twice could come to hold itself.
        else:
            del block[path[-1]]
    return spec


@pytest.mark.real
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=nearly_valid())
def test_parse_spec_judges_as_the_api_server_does(server, spec):
    status, answer = submit(server, spec)
    assert status in {201, 422}, answer
    message = told(spec)
    assert (message is None) == (status == 201), (message, answer.get("message"))
    if status == 201:
        assert parse_spec({"spec": spec}) == parse_spec(answer)
