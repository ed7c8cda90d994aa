"""Traces of a real controller, taken by an OTLP backend: whole, continued, and without a secret."""

import pytest

from controller_telemetry.testing import OtlpBackend
from secret_manager_controller.model.annotations import GROUP, RECONCILE
from secret_manager_controller.testing.tenants import metric

pytestmark = [pytest.mark.real]

CANARY = "canary-value-93bd"


@pytest.fixture(scope="module")
def backend():
    with OtlpBackend() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def controller(stack, backend):
    """Run a controller with a default of its own, which no object's block gets anything of."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_HEADERS": f"x-own={CANARY}"}
    with stack.controller(**variables) as running:
        yield running


def otel(backend, **changes):
    return {"type": "Otlp", "endpoint": backend.url, "protocol": "http/protobuf", "serviceName": "idam"} | changes


def arrived(stack, backend, trace):
    """Wait for the last span of a trace, and return all of its spans."""

    def there():
        spans = [span for span in backend.spans if span.trace_id == trace]
        return spans if any(span.name == "reconcile" for span in spans) else None

    return stack.wait("the trace to arrive", there)


def test_a_reconcile_is_one_trace_down_to_the_calls(stack, tenant, backend):
    tenant.commit(A=CANARY)
    tenant.apply(otel=otel(backend, environment="test"))
    trace = tenant.ready()["lastTraceId"]
    spans = arrived(stack, backend, trace)
    assert spans[0].resource["service.name"] == "idam"
    assert spans[0].resource["deployment.environment.name"] == "test"
    tree = backend.tree(trace)
    assert tree[0] == "reconcile"
    assert [line.strip() for line in tree if line.startswith("  ") and not line.startswith("    ")] == [
        *("resolve", "fetch", "decrypt", "render", "observe", "plan", "apply"),
    ]
    assert "      aws CreateSecret" in tree
    (call,) = [span for span in spans if span.name == "aws CreateSecret"]
    assert call.attributes == {
        "secret_manager.provider": "aws",
        "rpc.method": "CreateSecret",
        "secret_manager.attempt": 1,
        "secret_manager.code": "OK",
    }
    assert "x-own" not in backend.headers


def test_a_pipelines_trace_goes_on_into_the_sync(stack, tenant, backend):
    tenant.commit(A="1")
    tenant.apply(otel=otel(backend))
    tenant.ready()
    trace = "0af7651916cd43dd8448eb211c80319c"
    annotations = {RECONCILE: "1800000000", f"{GROUP}/traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    stack.patch(tenant.path, {"metadata": {"annotations": annotations}})
    tenant.until("the request to be handled", lambda status: status.get("lastHandledReconcileAt") == "1800000000")
    assert tenant.status()["lastTraceId"] == trace
    assert {span.parent_id for span in arrived(stack, backend, trace) if span.name == "reconcile"} == {
        "b7ad6b7169203331"
    }


def test_a_failed_reconcile_shows_where_and_no_value(stack, tenant, backend, controller):
    tenant.commit(A=CANARY)
    stack.aws.fail("CreateSecret", "AccessDeniedException", 400, times=10)
    try:
        tenant.apply(otel=otel(backend))
        trace = tenant.ready(reason="StoreAccessDenied")["lastTraceId"]
    finally:
        stack.aws.clear_faults()
    spans = arrived(stack, backend, trace)
    failed = {span.name for span in spans if span.failed}  # That the name is free is an error answer, too.
    assert failed - {"aws DescribeSecret"} == {"reconcile", "write", "aws CreateSecret"}
    (call,) = [span for span in spans if span.name == "aws CreateSecret"]
    assert call.attributes["secret_manager.code"] == "AccessDeniedException"
    assert not [body for body in backend.bodies if CANARY.encode() in body]
    assert trace in controller.log.read_text()


def test_a_backend_that_is_not_there_costs_a_reconcile_nothing(stack, tenant, controller):
    tenant.commit(A="1")
    tenant.apply(otel={"type": "Otlp", "endpoint": "http://127.0.0.1:9", "protocol": "http/protobuf"})
    assert tenant.ready()["lastTraceId"]
    stack.wait(
        "the batch to be given up", lambda: metric(controller, "secret_manager_spans_total", outcome="failed") > 0
    )
    assert tenant.values() == {"A": b"1"}
