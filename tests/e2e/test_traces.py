"""Traces of a real controller, taken by a real Jaeger: whole, continued, linked, and without a secret."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller_telemetry.testing import OtlpBackend
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.jaeger import span_tree
from secret_manager_controller.testing.stack import secret_path
from secret_manager_controller.testing.tenants import metric
from secret_manager_controller.tracing import Attribute

pytestmark = [pytest.mark.real]

PAGE = Path(__file__).parent.parent.parent / "docs" / "tracing.md"
CANARY = "canary-value-93bd"
KEY = "CANARY_KEY_4E1"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STEPS = ["resolve", "fetch", "decrypt", "render", "observe", "plan", "apply"]


@pytest.fixture(scope="module", autouse=True)
def controller(stack):
    """Run a controller with a default of its own, which no object's block gets anything of."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_HEADERS": f"x-own={CANARY}"}
    with stack.controller(**variables) as running:
        yield running


def otel(endpoint, protocol=None, **changes):
    protocols = {} if protocol is None else {"protocol": protocol}
    return {"type": "Otlp", "endpoint": endpoint, "serviceName": "idam", **protocols} | changes


def http(jaeger, **changes):
    return otel(jaeger.http, "http/protobuf", **changes)


def names_of(lines):
    return [line.split()[0] for line in lines]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "with a login and an authority of its own"])
def test_a_reconcile_is_one_trace_down_to_the_calls(stack, tenant, jaeger, protocol, guarded):
    address = ("guarded_" if guarded else "") + protocol.partition("/")[0]
    references = {"headersSecretRef": {"name": "headers"}, "caSecretRef": {"name": "ca"}} if guarded else {}
    stack.create_secret(tenant.namespace, "headers", jaeger.login)
    stack.create_secret(tenant.namespace, "ca", {"ca.crt": jaeger.ca})
    tenant.let_read("headers", "ca")
    tenant.commit(A=CANARY)
    block = otel(getattr(jaeger, address), protocol, environment="test", serviceVersion="7")
    tenant.apply(otel=block | references)
    spans = jaeger.whole(tenant.ready()["lastTraceId"])
    assert {tuple(sorted(span.resource.items())) for span in spans} == {
        (("deployment.environment.name", "test"), ("service.name", "idam"), ("service.version", "7"))
    }
    root = spans[0]
    assert (root.name, root.parent_id, root.failed) == ("reconcile", "", False)
    assert root.attributes[Attribute.OBJECT] == tenant.key
    by_id = {span.span_id: span for span in spans}
    assert [span.name for span in spans if span.parent_id == root.span_id] == STEPS
    (call,) = [span for span in spans if span.name == "aws CreateSecret"]
    write = by_id[call.parent_id]
    assert (write.name, by_id[write.parent_id].name) == ("write", "apply")
    assert call.attributes == {
        "secret_manager.provider": "aws",
        "rpc.method": "CreateSecret",
        "secret_manager.attempt": 1,
        "secret_manager.code": "OK",
    }


def test_no_header_of_the_controllers_own_default_goes_to_an_objects_endpoint(tenant, stack):
    with OtlpBackend() as backend:
        tenant.commit(A="1")
        tenant.apply(otel=otel(backend.url, "http/protobuf"))
        tenant.ready()
        stack.wait("spans to arrive", lambda: backend.paths)
        assert "x-own" not in backend.headers


def test_a_pipelines_trace_goes_on_into_the_sync(stack, tenant, jaeger):
    tenant.commit(A="1")
    tenant.apply(otel=http(jaeger))
    tenant.ready()
    command = [sys.executable, "-m", "secret_manager_controller.cli.main", "reconcile"]
    where = ["--name", tenant.key.partition("/")[2], "--namespace", tenant.namespace]
    ran = subprocess.run(
        [*command, *where, "--traceparent", f"00-{TRACE}-{PARENT}-01"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KUBECONFIG": str(stack.plane.kubeconfig())},
    )
    assert ran.returncode == 0, ran.stderr
    tenant.until("the pipeline's trace in status", lambda status: status.get("lastTraceId") == TRACE)
    assert [span.parent_id for span in jaeger.whole(TRACE) if span.name == "reconcile"] == [PARENT]


def test_a_retry_is_linked_to_the_request_that_led_to_it(stack, tenant, jaeger):
    tenant.commit(A="1")
    tenant.apply(otel=http(jaeger))
    tenant.ready()
    trace = "1" * 32
    stack.aws.fail("ListSecrets", "ServiceUnavailable", 503, times=100)
    annotations = {f"{GROUP}/reconcile": "1", f"{GROUP}/traceparent": f"00-{trace}-{PARENT}-01"}
    stack.patch(tenant.path, {"metadata": {"annotations": annotations}})
    tenant.ready(reason="StoreUnavailable")
    stack.aws.clear_faults()
    again = tenant.ready()["lastTraceId"]
    assert again != trace
    assert jaeger.whole(again)[0].links == ((trace, PARENT),)


def test_a_failed_reconcile_shows_where_and_no_secret(stack, tenant, jaeger, controller):
    tenant.commit(**{KEY: CANARY})
    stack.create_secret(tenant.namespace, "headers", {"x-canary": CANARY.encode()})
    tenant.let_read("headers")
    stack.aws.fail("CreateSecret", "ThrottlingException", 400, times=1)
    stack.aws.fail("CreateSecret", "AccessDeniedException", 400, times=100)
    tenant.apply(otel=http(jaeger, headersSecretRef={"name": "headers"}))
    trace = tenant.ready(reason="StoreAccessDenied")["lastTraceId"]
    stack.aws.clear_faults()
    spans = jaeger.whole(trace)
    told = page_of(tenant, spans)
    assert shown(PAGE.read_text()) == told, f"docs/tracing.md is to show:\n{told}"
    # All that Jaeger has: attributes, events, links, resource, scope.
    kept = jaeger.everything(trace)
    for secret in (CANARY, KEY, "x-canary", stack.aws.access_keys.secret_access_key):
        assert secret not in kept
    assert {name for span in spans for name in span.attributes} <= {*Attribute, "error.type"}
    assert [span.events for span in spans if span.events] == []
    (told,) = [
        line for line in controller.records() if line.get("trace_id") == trace and line["message"] == "Not ready"
    ]
    assert told["span_id"] == spans[0].span_id


def page_of(tenant, spans):
    """Return a trace as docs/tracing.md shows it: without what differs from run to run."""
    text = "\n".join(span_tree(spans, times=False)).replace(tenant.key, "pricewhisperer/idam-dev-secrets")
    return re.sub(r"revision=\S+", "revision=main@sha1:4f1c…", re.sub(r"generation=\d+", "generation=1", text))


def shown(page):
    """Return the block of the page that shows it."""
    _, _, behind = page.partition("## A failed reconcile")
    return re.search(r"```text\n(.*?)\n```", behind, re.DOTALL)[1]


def test_a_secrets_name_is_recorded_only_where_the_object_says_so(tenant, jaeger):
    tenant.commit(**{KEY: CANARY})
    tenant.apply(otel=http(jaeger, recordNames=True))
    kept = jaeger.whole(tenant.ready()["lastTraceId"])
    assert [span.attributes["secret_manager.secret"] for span in kept if span.name == "write"] == [tenant.name(KEY)]


def test_a_backend_that_is_not_there_costs_a_reconcile_nothing(stack, tenant, controller):
    tenant.commit(A="1")
    tenant.apply(otel=otel("http://127.0.0.1:9", "http/protobuf"))
    assert tenant.ready()["lastTraceId"]
    stack.wait(
        "the batch to be given up", lambda: metric(controller, "secret_manager_spans_total", outcome="failed") > 0
    )
    assert tenant.values() == {"A": b"1"}


def test_a_destination_is_closed_when_its_last_object_goes(stack, tenant, jaeger, controller):
    def destinations():
        return metric(controller, "secret_manager_trace_destinations")

    tenant.commit(A="1")
    tenant.apply(otel=http(jaeger))
    tenant.ready()
    assert destinations() >= 1
    stack.delete(tenant.path)
    stack.wait("the last destination to close", lambda: destinations() == 0)


def test_a_secret_that_is_missing_is_told_and_traced_once_it_is_there(stack, tenant, jaeger):
    tenant.let_read("headers")
    tenant.commit(A="1")
    tenant.apply(otel=http(jaeger, headersSecretRef={"name": "headers"}))
    status = tenant.ready()
    assert status.get("lastTraceId") is None
    (told,) = [each for each in status["conditions"] if each["type"] == "Untraced"]
    assert told["reason"] == "CredentialsUnavailable"
    assert "spec.otel.headersSecretRef does not exist; create it" in told["message"]
    assert stack.get(secret_path(tenant.namespace, "headers")) is None
