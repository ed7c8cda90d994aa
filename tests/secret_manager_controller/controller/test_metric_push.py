"""The standard variables say whether metrics are sent by OTLP, and where."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from controller_telemetry.testing import OtlpBackend
from secret_manager_controller.controller import metric_push
from secret_manager_controller.controller.metric_push import interval_of, pushed


@pytest.fixture
def backend():
    with OtlpBackend() as running:
        yield running


@pytest.fixture
def registry():
    made = CollectorRegistry()
    Counter("calls", "Calls.", registry=made).inc()
    return made


async def send(registry, **environment):
    async with pushed(registry, environment):
        pass


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        pytest.param({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "{}/v1/metrics"}, "/v1/metrics", id="its own endpoint"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{}/otlp", "OTEL_METRICS_EXPORTER": "otlp"}, "/otlp/v1/metrics", id="shared"
        ),
    ],
)
async def test_metrics_go_where_the_variables_say(backend, registry, variables, path):
    variables = {name: value.format(backend.url) for name, value in variables.items()}
    await send(registry, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_EXPORTER_OTLP_HEADERS="k=v", **variables)
    assert (backend.paths, backend.headers["k"]) == ([path], "v")
    assert set(backend.metrics) == {"calls_total"}


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="no variable"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "{}"}, id="an endpoint that may be for traces alone"),
        pytest.param({"OTEL_METRICS_EXPORTER": "otlp"}, id="no endpoint"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "{}/v1/metrics", "OTEL_METRICS_EXPORTER": "none"}, id="none wanted"
        ),
    ],
)
async def test_metrics_go_nowhere_otherwise(backend, registry, variables):
    variables = {name: value.format(backend.url) for name, value in variables.items()}
    await send(registry, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", **variables)
    assert backend.paths == []


async def test_metrics_are_sent_again_and_again(backend, registry, monkeypatch):
    monkeypatch.setattr(metric_push, "LEAST_INTERVAL", 1)
    environment = {"OTEL_METRIC_EXPORT_INTERVAL": "5", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"}
    async with pushed(registry, environment | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{backend.url}/v1/metrics"}):
        async with asyncio.timeout(10):
            while len(backend.paths) < 3:  # noqa: ASYNC110 - they come to another thread.
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("raw", ["", "60000", "1000"])
def test_the_interval_is_the_standards_in_milliseconds(raw):
    assert interval_of({"OTEL_METRIC_EXPORT_INTERVAL": raw}) == int(raw or 60_000) / 1000


@pytest.mark.parametrize("raw", ["-1", "1m", "999", "1.5"])
def test_an_interval_that_cannot_be_used_is_told(raw):
    with pytest.raises(ValueError, match=r"OTEL_METRIC_EXPORT_INTERVAL=.*: expected milliseconds, 1000 at least"):
        interval_of({"OTEL_METRIC_EXPORT_INTERVAL": raw})
