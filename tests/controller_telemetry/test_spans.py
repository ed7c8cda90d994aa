"""Spans follow the context, and tell of exceptions by their type."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from controller_telemetry.spans import NO_TRACER, span, trace_id, traced

CANARY = "canary-7f2c"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    def __init__(self):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self):
        return {found.name: found for found in self.exporter.get_finished_spans()}


@pytest.fixture
def recorder():
    return Recorder()


def test_without_a_tracer_nothing_is_recorded_and_nothing_fails(recorder):
    with span("alone") as opened, traced(NO_TRACER, "work"), span("step"):
        assert not opened.is_recording()
        assert trace_id() is None
    assert recorder.spans == {}


async def test_steps_are_below_the_work_also_in_tasks_of_their_own(recorder):
    async def write():
        with span("write", {"n": 1}):
            await asyncio.sleep(0)

    with traced(recorder.tracer, "work"):
        with span("apply"):
            await asyncio.gather(write())
        known = trace_id()
    work, apply, wrote = (recorder.spans[name] for name in ("work", "apply", "write"))
    assert (work.parent, apply.parent.span_id, wrote.parent.span_id) == (
        None,
        work.context.span_id,
        apply.context.span_id,
    )
    assert known == f"{work.context.trace_id:032x}"
    assert dict(wrote.attributes) == {"n": 1}


async def test_two_pieces_of_work_do_not_meet(recorder):
    async def work(name):
        with traced(recorder.tracer, name):
            await asyncio.sleep(0)
            with span(f"{name}-step"):
                await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    found = recorder.spans
    assert found["a-step"].parent.span_id == found["a"].context.span_id
    assert found["b-step"].parent.span_id == found["b"].context.span_id
    assert found["a"].context.trace_id != found["b"].context.trace_id


def test_a_trace_is_continued(recorder):
    with traced(recorder.tracer, "work", parent=PARENT):
        assert trace_id() == PARENT.split("-")[1]
    assert f"{recorder.spans['work'].parent.span_id:016x}" == PARENT.split("-")[2]


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT + "x"])
def test_what_is_no_trace_context_begins_a_trace(recorder, parent):
    with traced(recorder.tracer, "work", parent=parent):
        assert trace_id() is not None
    assert recorder.spans["work"].parent is None


def test_an_exception_is_told_by_its_type_alone(recorder):
    with pytest.raises(ValueError, match=CANARY), traced(recorder.tracer, "work"), span("step"):
        raise ValueError(CANARY)
    for found in recorder.spans.values():
        assert (found.status.is_ok, found.attributes["error.type"], found.events) == (False, "ValueError", ())
        assert CANARY not in found.to_json()
