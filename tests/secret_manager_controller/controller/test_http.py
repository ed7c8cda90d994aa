"""The endpoints of METRICS_PORT."""

import aiohttp
import pytest

from secret_manager_controller import __version__
from secret_manager_controller.controller.http import serve
from secret_manager_controller.controller.metrics import Metrics


class State:
    healthy = ready = None


@pytest.fixture
async def get():
    metrics, state = Metrics(), State()
    metrics.record_call("aws", "ListSecrets", "OK", 0.01)
    metrics.record_call("gcp", "ListSecrets", "OK", 0.01)
    serving = serve(
        host="127.0.0.1", port=0, registry=metrics.registry,
        healthy=lambda: state.healthy, ready=lambda: state.ready,
    )  # fmt: skip
    async with serving as port, aiohttp.ClientSession() as session:

        async def request(path, **headers):
            async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                return answer.status, answer.content_type, await answer.text()

        request.state, request.metrics = state, metrics
        yield request


@pytest.mark.parametrize(("path", "probe"), [("/healthz", "healthy"), ("/readyz", "ready")])
async def test_a_probe_answers_ok_or_what_is_wrong(get, path, probe):
    assert (await get(path))[::2] == (200, "ok\n")
    setattr(get.state, probe, "the watch has ended")
    assert (await get(path))[::2] == (503, "the watch has ended\n")


async def test_metrics_come_in_both_formats(get):
    status, kind, text = await get("/metrics")
    assert (status, kind) == (200, "text/plain")
    assert 'secret_manager_provider_operations_total{code="OK",operation="ListSecrets",provider="aws"} 1.0' in text
    assert "secret_manager_gcp_operations_total 1.0" in text
    assert "_created" not in text
    _, kind, text = await get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind == "application/openmetrics-text"
    assert text.endswith("# EOF\n")


async def test_a_sample_leads_to_its_trace_in_openmetrics_alone(get):
    get.metrics.reconciliation_duration.observe(0.02, {"trace_id": "ab" * 16})
    _, _, text = await get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert f'duration_seconds_bucket{{le="0.025"}} 1.0 # {{trace_id="{"ab" * 16}"}} 0.02' in text
    assert "trace_id" not in (await get("/metrics"))[2]


async def test_the_version_that_runs_is_told(get):
    assert f'secret_manager_build_info{{version="{__version__}"}} 1.0' in (await get("/metrics"))[2]


async def test_nothing_else_is_served(get):
    assert (await get("/"))[0] == 404


def test_managed_secrets_are_a_sum_over_objects_that_forgets_the_gone():
    metrics = Metrics()
    for key, count in (("a", 3), ("b", 2), ("a", 5), ("b", 0), ("c", 0)):
        metrics.set_managed(key, count)
    assert metrics.registry.get_sample_value("secret_manager_secrets_managed") == 5
