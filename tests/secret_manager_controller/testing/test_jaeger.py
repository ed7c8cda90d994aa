"""A trace is told as a tree, and a real Jaeger gives back what was sent to it."""

import pytest

from controller_telemetry.destination import Destination
from controller_telemetry.export import Tracers, TraceSettings
from controller_telemetry.spans import span, traced
from controller_telemetry.testing import ReceivedSpan, tree
from secret_manager_controller.testing import jaeger
from secret_manager_controller.testing.servers import ServerError

TRACE = "0af7651916cd43dd8448eb211c80319c"


def received(name, span_id, parent="", **more):
    return ReceivedSpan(
        "t", span_id, parent, name, more.pop("attributes", {}), {}, failed=more.pop("failed", False), **more
    )


SPANS = [
    received("reconcile", "1", attributes={"secret_manager.object": "a/b", "k8s.namespace.name": "a"}, failed=True),
    received("plan", "2", "1", nanoseconds=1_400_000),
    received("aws ListSecrets", "4", "3", attributes={"rpc.method": "ListSecrets", "secret_manager.code": "OK"}),
    received("observe", "3", "1"),
]


def test_spans_are_shown_below_their_parents_in_their_order():
    assert tree(SPANS) == ["reconcile", "  plan", "  observe", "    aws ListSecrets"]


def test_what_has_no_parent_here_is_at_the_top():
    assert tree(SPANS[1:]) == ["plan", "observe", "  aws ListSecrets"]


def test_a_line_tells_time_failure_and_attributes_but_not_what_the_names_repeat():
    assert jaeger.span_tree(SPANS) == [
        "reconcile  0 ms  failed  object=a/b",
        "  plan  1 ms",
        "  observe  0 ms",
        "    aws ListSecrets  0 ms  code=OK",
    ]
    assert jaeger.span_tree(SPANS, times=False)[1] == "  plan"


@pytest.fixture(scope="module")
def server(tool):
    with jaeger.running(tool("jaeger")) as running:
        yield running


@pytest.mark.parametrize("kind", ["grpc", "http", "guarded_grpc", "guarded_http"])
def test_what_was_sent_is_given_back(server, kind):
    guarded = kind.startswith("guarded")
    headers = tuple((name, value.decode()) for name, value in server.login.items()) if guarded else ()
    path = "" if kind.endswith("grpc") else "/v1/traces"
    destination = Destination(
        getattr(server, kind) + path, grpc=not path, headers=headers, ca=server.ca if guarded else None
    )
    tracers = Tracers()
    tracer = tracers.tracer("k", TraceSettings(destination, (("service.name", kind),)))
    with traced(tracer, "work", {"n": 3, "on": True}, link=f"00-{TRACE}-b7ad6b7169203331-01") as opened, span("step"):
        trace = f"{opened.get_span_context().trace_id:032x}"
    tracers.shutdown(10)
    assert tracers.counters.exported == 2
    work, step = server.whole(trace, last="work")
    assert (work.attributes, work.resource) == ({"n": 3, "on": True}, {"service.name": kind})
    assert (work.links, step.parent_id, step.name) == (((TRACE, "b7ad6b7169203331"),), work.span_id, "step")
    assert trace in server.everything(trace)


def test_who_does_not_log_in_is_refused_until_the_header_is_rotated(server):
    tracers = Tracers()

    def work(**headers):
        destination = Destination(
            server.guarded_http + "/v1/traces", grpc=False, headers=tuple(headers.items()), ca=server.ca
        )
        with traced(tracers.tracer("k", TraceSettings(destination, ())), "work") as opened:
            return f"{opened.get_span_context().trace_id:032x}"

    work(authorization="Basic wrong")
    trace = work(authorization=server.login["Authorization"].decode())
    tracers.shutdown(10)
    assert (tracers.counters.exported, tracers.counters.failed) == (1, 1)
    assert [span.name for span in server.whole(trace, last="work")] == ["work"]


@pytest.mark.parametrize("kind", ["guarded_grpc", "guarded_http"])
@pytest.mark.parametrize(
    ("host", "trusted"), [("127.0.0.1", False), ("localhost", True)], ids=["unknown authority", "other host's name"]
)
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(server, kind, host, trusted):
    tracers = Tracers()
    endpoint = getattr(server, kind).replace("127.0.0.1", host) + ("" if kind.endswith("grpc") else "/v1/traces")
    headers = tuple((name, value.decode()) for name, value in server.login.items())
    destination = Destination(endpoint, grpc=kind.endswith("grpc"), headers=headers, ca=server.ca if trusted else None)
    with traced(tracers.tracer("k", TraceSettings(destination, ())), "work") as opened:
        trace = f"{opened.get_span_context().trace_id:032x}"
    tracers.shutdown(10)
    assert (tracers.counters.exported, tracers.counters.failed) == (0, 1)
    assert server.spans(trace) == []


def test_a_trace_that_does_not_come_is_told(server, monkeypatch):
    monkeypatch.setattr(jaeger, "TRACE_TIMEOUT", 0.0)
    with pytest.raises(ServerError, match=f"no whole trace {TRACE}"):
        server.whole(TRACE)


def test_what_does_not_start_is_told():
    with pytest.raises(ServerError, match="Jaeger did not start"), jaeger.running("/bin/false"):
        pass
