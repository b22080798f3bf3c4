"""No message, however broken, is answered by anything but a prediction or a refusal."""

import time

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import RequestRefused
from serving.grpc.fast import read_usual
from serving.grpc.tensors import MESSAGES, read_request
from serving.v2.datatypes import DATATYPES

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
GOOD = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",  # by a timeout that the message itself says
}
floats = st.floats(width=32)
shapes = st.one_of(
    st.sampled_from([[1, 5], [2, 5], [1], [1, 1]]),
    st.lists(st.integers(-1, 2**63 - 1), max_size=3),
)
contents = st.one_of(
    st.none(),
    st.builds(lambda v: {"fp32_contents": v}, st.lists(floats, min_size=5, max_size=5)),
    st.builds(lambda v: {"int_contents": v}, st.lists(st.integers(-200, 200), max_size=5)),
    st.builds(lambda v: {"bytes_contents": v}, st.lists(st.binary(max_size=3), max_size=2)),
)
parameters = st.dictionaries(
    st.sampled_from(["timeout", "priority", "binary_data_output", "shared_memory_region"]),
    st.sampled_from([{"int64_param": 5}, {"string_param": "x"}, {"bool_param": True}, {}]),
    max_size=2,
)
rows = st.lists(floats, min_size=5, max_size=5)


@st.composite
def messages(draw):
    """A request that is good, or off in some part."""
    data = np.array(draw(rows), "<f4").tobytes()
    fields = {
        "model_name": "flight_delay",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 5]}],
        "raw_input_contents": [data],
        "id": draw(st.sampled_from(["", "a", "x" * 2000])),
    }
    if draw(st.booleans()):
        fields["inputs"][0].update(
            draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "name": st.sampled_from(["features", "planes__seats", "origin", ""]),
                        "datatype": st.sampled_from([*DATATYPES, "FP8", ""]),
                        "shape": shapes,
                    },
                )
            )
        )
        if typed := draw(contents):
            fields["inputs"][0]["contents"] = typed
            fields["raw_input_contents"] = draw(st.sampled_from([[], [data]]))
        fields["raw_input_contents"] = draw(
            st.sampled_from([fields["raw_input_contents"], [data, data], [data[:-1]], [b""]])
        )
    message = MESSAGES["ModelInferRequest"](**fields)
    said = draw(st.one_of(st.just({}), parameters))
    for name, value in said.items():
        message.parameters[name].CopyFrom(MESSAGES["InferParameter"](**value))
    return message


def full(message, model):
    """Id, rows and features by the full decoder; None where it refuses the message."""
    try:
        request = read_request(message)
        query = request.query(
            model, edge="grpc", max_rows=50, request_id="", received=0.0, binary=True
        )
    except RequestRefused:
        return None
    return query.features.tobytes(), query.reply.outputs, query.reply.parameters, query.deadline


def check(message, model):
    usual = read_usual(message, model, 50)
    if usual is not None:
        assert full(message, model) == (usual.tobytes(), (("prediction", True),), {}, None)
    return usual is not None


@settings(max_examples=100, **QUIET)
@given(message=messages())
def test_the_fast_way_reads_what_the_full_decoder_reads(served, message):
    check(message, served.repository.served())


def test_the_usual_message_takes_the_fast_way(served):
    message = MESSAGES["ModelInferRequest"](
        inputs=[{"name": "features", "datatype": "FP32", "shape": [2, 5]}],
        raw_input_contents=[np.array([[1, 2, 3, np.nan, 5]] * 2, "<f4").tobytes()],
    )
    assert check(message, served.repository.served())


def ask(served, body):
    call = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        call(body, timeout=10)
    except grpc.RpcError as error:
        assert error.code().name in GOOD, error  # noqa: PT017
        return False
    return True


bodies = st.one_of(
    st.builds(lambda message: message.SerializeToString(), messages()),
    st.builds(
        lambda message, at, byte: bytes(
            byte if n == at else b for n, b in enumerate(message.SerializeToString())
        ),
        messages(),
        st.integers(0, 80),
        st.integers(0, 255),
    ),
    st.binary(max_size=40),
)


def fuzz(served, examples):
    answered = []

    @settings(max_examples=examples, **QUIET)
    @given(body=bodies)
    def run(body):
        answered.append(ask(served, body))

    run()
    return sum(answered)


def test_a_broken_message_is_refused_and_never_an_error_of_the_server(served):
    assert fuzz(served, 150) > 10


@pytest.mark.soak
def test_a_broken_message_is_refused_for_a_minute(served):
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        assert fuzz(served, 1_000) > 50
