import sys

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from headrace.errors import SettingRefused
from serving.dataplane import DataPlane
from serving.metrics import Metrics
from serving.recorder import Recorder, open_tracing
from serving.settings import ServerSettings
from serving.tracing import Tracing
from tests.serving.plane_models import ask, keyed_query, raw_query, served

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans(plan, open_reader):
    """The spans of queries that a factory makes for a model, submitted in one turn."""

    def trace(*makes, share=1.0):
        model = served(plan, open_reader(plan))
        kept = InMemorySpanExporter()
        tracing = Tracing(SimpleSpanProcessor(kept), share=share)
        plane = DataPlane(ServerSettings(), recorder=Recorder(Metrics(), None, tracing))
        ask(plane, *(make(model) for make in makes))
        plane.close()
        tracing.close()
        return kept.get_finished_spans()

    return trace


def named(spans, name):
    return [span for span in spans if span.name == name]


def test_a_request_of_a_traced_caller_stands_below_it(spans):
    given = f"00-{TRACE}-{PARENT}-01"
    found = spans(lambda model: keyed_query(model, [100, 200], traceparent=given))
    (request,) = named(found, "infer")
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.kind is SpanKind.SERVER
    assert request.attributes["headrace.rows"] == 2
    assert request.attributes["headrace.endpoint"] == "flight_delay"


def test_requests_and_their_batch_name_each_other(spans):
    found = spans(*[lambda model: raw_query(model, [100])] * 3)
    requests, (batch,) = named(found, "infer"), named(found, "batch")
    ids = {request.context.span_id for request in requests}
    assert {link.context.span_id for link in batch.links} == ids
    assert batch.parent.span_id in ids
    for request in requests:
        assert [link.context.span_id for link in request.links] == [batch.context.span_id]
    assert len({request.context.trace_id for request in requests}) == 3


def test_the_read_and_the_model_are_inside_the_batch_and_in_order(spans):
    found = spans(lambda model: keyed_query(model, [100]))
    (batch,), (read,), (model,) = (named(found, n) for n in ("batch", "read features", "model"))
    assert read.parent.span_id == model.parent.span_id == batch.context.span_id
    assert batch.start_time <= read.start_time <= read.end_time <= model.start_time
    assert model.end_time <= batch.end_time
    (request,) = named(found, "infer")
    assert request.start_time <= batch.start_time


def test_a_caller_that_does_not_want_a_trace_gets_none(spans):
    given = f"00-{TRACE}-{PARENT}-00"
    assert not spans(lambda model: raw_query(model, [100], traceparent=given))


def test_a_share_of_none_keeps_only_what_callers_want(spans):
    wanted = f"00-{TRACE}-{PARENT}-01"
    found = spans(
        lambda model: raw_query(model, [100]),
        lambda model: raw_query(model, [100], traceparent=wanted),
        share=0.0,
    )
    assert {f"{span.context.trace_id:032x}" for span in found} == {TRACE}
    assert len(named(found, "batch")) == 1


def test_a_traceparent_that_is_none_begins_a_trace(spans):
    found = spans(lambda model: raw_query(model, [100], traceparent="nonsense"))
    assert named(found, "infer")[0].parent is None


def test_traces_are_off_unless_an_address_is_given():
    assert open_tracing(ServerSettings()) is None


def test_without_opentelemetry_the_setting_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "serving.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingRefused, match=r"headrace\[tracing\]"):
        open_tracing(ServerSettings(traces="http://127.0.0.1:4318"))
