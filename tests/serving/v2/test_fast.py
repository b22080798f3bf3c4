import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import RequestRefused
from serving.v2.fast import read_usual
from serving.v2.rest import read_request
from tests.serving.v2.bodies import bodies, usual_documents

MAX_ROWS = 50


@pytest.fixture
def model(repository):
    return repository.served()


def full(body, model):
    """Id, rows and features by the full decoder; None where it refuses the body."""
    try:
        request = read_request(body)
        query = request.query(model, edge="v2", max_rows=MAX_ROWS, request_id="", received=0.0)
    except RequestRefused:
        return None
    return request.id, query.rows, query.features.tobytes()


def as_read(usual):
    request_id, rows, features = usual
    return request_id, rows, np.array(features, np.float64).astype(np.float32).tobytes()


def check(body, model):
    usual = read_usual(body, model, MAX_ROWS)
    assert usual is None or as_read(usual) == full(body, model)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=bodies())
def test_the_fast_way_reads_what_the_full_decoder_reads(model, body):
    check(body, model)


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(document=usual_documents(), indent=st.sampled_from([None, 1]))
def test_the_usual_request_is_read_the_fast_way(model, document, indent):
    body = json.dumps(document, indent=indent, ensure_ascii=False).encode(errors="replace")
    if document.get("id", "x") and b"\\" not in body:
        assert as_read(read_usual(body, model, MAX_ROWS)) == full(body, model)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[],"inputs":[{"name":"features","shape":[1,5],"datatype":"FP32","data":[1,2,3,4,5]}]}',
        b'{"inputs":[{"name":"features","shape":[9,9],"shape":[1,5],"datatype":"FP32","data":[1,2,3,4,5]}]}',
        b'{"id":"a","inputs":[{"name":"features","shape":[1,5],"datatype":"FP32","data":[1,2,3,4,5]}],"id":"b"}',
        b'{"\\u0069d":"a","inputs":[{"name":"features","shape":[1,5],"datatype":"FP32","data":[1,2,3,4,5]}]}',
    ],
)
def test_a_key_said_twice_or_with_escapes_is_left_to_the_full_decoder(model, body):
    assert read_usual(body, model, MAX_ROWS) is None


@pytest.mark.soak
def test_the_fast_way_reads_what_the_full_decoder_reads_for_a_minute(model):
    ends, seen = time.monotonic() + 60, 0
    while time.monotonic() < ends:

        @settings(
            max_examples=2_000,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(body=bodies())
        def run(body):
            check(body, model)

        run()
        seen += 2_000
    assert seen
