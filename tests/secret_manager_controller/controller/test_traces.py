"""Where an object's traces go is read from its spec and its Secrets."""

import base64
import re
from pathlib import Path

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from controller_telemetry import export
from controller_telemetry.export import Tracers
from controller_telemetry.spans import NO_TRACER
from secret_manager_controller import __version__
from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.controller.trace_metrics import TraceCollector
from secret_manager_controller.controller.traces import ObjectTraces, default_settings, destination_of
from secret_manager_controller.errors import AccessDenied, Reason
from secret_manager_controller.kube import SECRETS, KubeError
from secret_manager_controller.model.spec import parse_spec

TOKEN = "canary-token-8a1"
AUTHORITY = Path(DEFAULT_CA_BUNDLE_PATH).read_bytes()


class Closed:
    """An exporter that goes nowhere."""

    def export(self, spans):
        raise AssertionError

    def shutdown(self):
        pass


class Bench:
    def __init__(self, kube, **environment):
        self.kube = kube
        self.now = 0.0
        self.denied = None
        self.tracers = Tracers(lambda destination: Closed())
        self.reader = SecretReader(kube, clock=lambda: self.now)
        self.traces = ObjectTraces(self.tracers, self.reader, environment)
        self.problem = None

    async def settings(self, otel=None, key="team-a/idam"):
        """Return the settings that an object with that block gets, None for none."""
        spec = {
            "sourceRef": {"name": "repo"},
            "provider": {"type": "aws", "aws": {}},
            "secrets": {"environment": "dev"},
        }
        body = {"metadata": {"namespace": "team-a", "name": "idam"}, "spec": spec | ({"otel": otel} if otel else {})}
        tracer, self.problem = await self.traces.tracer(key, parse_spec(body), namespace="team-a", denied=self.denied)
        settings = self.tracers._keys.get(key)
        assert (tracer is NO_TRACER) == (settings is None)
        return settings

    def secret(self, name, version="1", **data):
        encoded = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in data.items()}
        metadata = {"namespace": "team-a", "name": name, "uid": "u"}
        self.kube.put(SECRETS.url("team-a", name), metadata=metadata, data=encoded)


@pytest.fixture
def bench(kube):
    made = Bench(kube)
    yield made
    made.tracers.shutdown(10)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "grpc", "address"),
    [
        ("http://otel:4317", None, True, "http://otel:4317"),
        ("https://otel:4317", None, True, "https://otel:4317"),
        ("http://otel:4318", None, False, "http://otel:4318/v1/traces"),
        ("https://otel/v1/traces", None, False, "https://otel/v1/traces"),
        ("https://otel:443", "http/protobuf", False, "https://otel:443/v1/traces"),
        ("http://otel:4318/", "grpc", True, "http://otel:4318/"),
        ("http://otel:9999/custom", "http/protobuf", False, "http://otel:9999/custom"),
    ],
)
async def test_the_protocol_follows_the_port_unless_it_is_given(bench, endpoint, protocol, grpc, address):
    otel = {"type": "Otlp", "endpoint": endpoint} | ({"protocol": protocol} if protocol else {})
    destination = (await bench.settings(otel)).destination
    assert (destination.grpc, destination.endpoint) == (grpc, address)


async def test_the_resource_names_service_version_and_environment(bench):
    otel = {"type": "Otlp", "endpoint": "http://o:4317"}
    assert dict((await bench.settings(otel)).resource) == {
        "service.name": "secret-manager-controller",
        "service.version": __version__,
    }
    otel |= {"serviceName": "idam", "serviceVersion": "7", "environment": "prod"}
    assert dict((await bench.settings(otel)).resource) == {
        "service.name": "idam",
        "service.version": "7",
        "deployment.environment.name": "prod",
    }


async def test_headers_and_certificates_come_from_secrets_of_the_namespace(bench):
    bench.secret("headers", x_token=TOKEN)
    bench.secret("ca", ca_crt=AUTHORITY.decode())
    otel = {
        "type": "Otlp",
        "endpoint": "https://o:4317",
        "headersSecretRef": {"name": "headers"},
        "caSecretRef": {"name": "ca", "key": "ca-crt"},
    }
    destination = (await bench.settings(otel)).destination
    assert (destination.headers, destination.ca) == ((("x-token", TOKEN),), AUTHORITY)


async def test_an_authority_that_is_none_is_told(bench):
    bench.secret("ca", ca_crt=TOKEN)
    otel = {"type": "Otlp", "endpoint": "https://o:4317", "caSecretRef": {"name": "ca", "key": "ca-crt"}}
    assert await bench.settings(otel) is None
    assert (
        bench.problem.message == "data key 'ca-crt' of the Secret of spec.otel.caSecretRef holds no certificates in PEM"
    )


async def test_a_rotated_header_works_without_a_restart(bench):
    bench.secret("headers", x_token="old")
    otel = {"type": "Otlp", "endpoint": "http://o:4317", "headersSecretRef": {"name": "headers"}}
    await bench.settings(otel)
    bench.secret("headers", x_token="new")
    bench.now = 60.0
    assert (await bench.settings(otel)).destination.headers == (("x-token", "new"),)
    assert bench.tracers.destinations == 1


async def test_datadog_is_its_agent_or_its_sites_intake(bench, kube):
    assert (await bench.settings({"type": "Datadog"})).destination.endpoint == "http://localhost:4318/v1/traces"
    other = Bench(kube, DD_AGENT_HOST="10.0.0.7")
    assert (await other.settings({"type": "Datadog"})).destination.endpoint == "http://10.0.0.7:4318/v1/traces"
    bench.secret("dd", api_key=TOKEN)
    intake = {"type": "Datadog", "site": "datadoghq.eu", "apiKeySecretRef": {"name": "dd"}}
    destination = (await bench.settings(intake)).destination
    assert (destination.endpoint, destination.grpc) == ("https://otlp.datadoghq.eu/v1/traces", False)
    assert dict(destination.headers) == {"dd-protocol": "otlp", "dd-api-key": TOKEN}
    other.tracers.shutdown(10)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(None, "Secret team-a/dd of spec.otel.apiKeySecretRef does not exist; create it", id="missing"),
        pytest.param({"other": "x"}, "the Secret of spec.otel.apiKeySecretRef has no data key 'api-key'", id="no key"),
        pytest.param({"api_key": "a\nb"}, "data key 'api-key' of a Secret of spec.otel is no header", id="two lines"),
    ],
)
async def test_what_keeps_traces_from_going_is_told_and_costs_nothing_else(bench, data, told):
    if data is not None:
        bench.secret("dd", **data)
    intake = {"type": "Datadog", "site": "datadoghq.eu", "apiKeySecretRef": {"name": "dd"}}
    assert await bench.settings(intake) is None
    assert bench.problem.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert bench.problem.message.startswith(told)


async def test_a_secret_that_may_not_be_read_costs_nothing_else(bench):
    def refuse(verb, path):
        raise KubeError(403, "forbidden")

    bench.kube.refuse = refuse
    otel = {"type": "Otlp", "endpoint": "http://o:4317", "headersSecretRef": {"name": "headers"}}
    assert await bench.settings(otel) is None


async def test_an_object_without_a_block_goes_where_the_variables_say(kube):
    bench = Bench(kube, OTEL_EXPORTER_OTLP_ENDPOINT="http://all:4318", OTEL_EXPORTER_OTLP_HEADERS="k=v,l=w%20x")
    settings = await bench.settings()
    assert (settings.destination.endpoint, settings.destination.headers) == (
        "http://all:4318/v1/traces",
        (("k", "v"), ("l", "w x")),
    )
    own = await bench.settings({"type": "Otlp", "endpoint": "http://own:4318"})
    assert (own.destination.endpoint, own.destination.headers) == ("http://own:4318/v1/traces", ())
    bench.tracers.shutdown(10)


async def test_without_a_block_and_variables_there_are_no_traces(bench):
    assert await bench.settings() is None


async def test_an_object_that_leaves_releases_its_destination(bench):
    await bench.settings({"type": "Otlp", "endpoint": "http://o:4317"})
    bench.traces.release("team-a/idam")
    assert bench.tracers.destinations == 0


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_the_variables_may_ask_for_nothing(environment):
    assert default_settings(environment) is None


def test_the_variables_name_service_protocol_and_attributes():
    settings = default_settings(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/x",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "smc",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=blue,service.name=other",
        }
    )
    assert settings.destination == destination_of("http://a:4318/x", grpc=False)
    assert dict(settings.resource) == {
        "service.name": "smc",
        "service.version": __version__,
        "k8s.cluster.name": "blue",
    }


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "='http/json': expected grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", "='/nowhere' cannot be read: No such file or directory"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null", "='/dev/null' holds no certificates in PEM"),
        ("OTEL_TRACES_EXPORTER", "console", "='console': expected otlp or none"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told(variable, value, told):
    with pytest.raises(ValueError, match=re.escape(variable + told)):
        default_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", variable: value})


def test_the_variables_name_an_authority_and_a_base_path(tmp_path):
    (tmp_path / "ca.crt").write_bytes(AUTHORITY)
    settings = default_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://a:4318/otlp/",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.crt"),
        }
    )
    assert (settings.destination.endpoint, settings.destination.ca) == ("https://a:4318/otlp/v1/traces", AUTHORITY)


async def test_an_exporter_that_cannot_be_made_is_told_by_its_type_and_costs_nothing_else(kube):
    bench = Bench(kube)

    def fail(destination):
        raise OSError(TOKEN)

    bench.tracers._exporter_of = fail
    assert await bench.settings({"type": "Otlp", "endpoint": "http://o:4317"}) is None
    assert bench.problem.message == "no traces: their exporter cannot be made (OSError)"


async def test_what_became_of_spans_is_counted(bench):
    await bench.settings({"type": "Otlp", "endpoint": "http://o:4317"})
    bench.tracers.counters.dropped = 3
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in TraceCollector(bench.tracers).collect()
        for sample in family.samples
    }
    assert samples == {
        ("secret_manager_spans_total", "exported"): 0,
        ("secret_manager_spans_total", "failed"): 0,
        ("secret_manager_spans_total", "dropped"): 3,
        ("secret_manager_trace_destinations",): 1,
        ("secret_manager_trace_destinations_refused_total",): 0,
    }


async def test_where_no_grant_allows_it_nothing_is_sent_and_no_secret_is_read(bench):
    bench.denied = AccessDenied("no traces: spec.otel.endpoint names host otel")
    otel = {"type": "Otlp", "endpoint": "http://otel:4317", "headersSecretRef": {"name": "headers"}}
    assert await bench.settings(otel) is None
    assert (bench.kube.requests, bench.problem) == ([], bench.denied)
    assert await bench.settings() is None
    assert bench.problem is None  # Without a block nothing was asked for.


async def test_a_denial_closes_what_was_open(bench):
    otel = {"type": "Otlp", "endpoint": "http://otel:4317"}
    assert await bench.settings(otel) is not None
    bench.denied = AccessDenied("no traces: spec.otel.endpoint names host otel")
    await bench.settings(otel)
    assert bench.tracers.destinations == 0


async def test_an_object_beyond_the_last_destination_is_told_so(bench, monkeypatch):
    monkeypatch.setattr(export, "MAX_DESTINATIONS", 1)
    assert await bench.settings({"type": "Otlp", "endpoint": "http://a:4317"}, key="team-a/first") is not None
    assert await bench.settings({"type": "Otlp", "endpoint": "http://b:4317"}) is None
    assert bench.problem.reason is Reason.TOO_MANY_DESTINATIONS
