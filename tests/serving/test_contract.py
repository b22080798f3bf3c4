"""The same requests through both lanes: the hot one on a socket, and the web framework in process.

Whatever one says, the other says: status, body and headers.
"""

import httpx
import msgspec
import pytest

from serving.app import create_server
from tests.serving.live import live

PLAIN, V2 = "/api/v1/infer", "/v2/models/flight_delay/infer"
JSON = {"Content-Type": "application/json"}
ROW = {
    "origin": "JFK",
    "tailnum": "N123AA",
    "scheduled_departure": "2013-08-01T12:00:00Z",
    "distance_miles": 2475,
}


def tensor(rows=1, data=None, **more):
    given = [1.0, 2.0, 3.0, 4.0, 5.0] * rows if data is None else data
    one = {"name": "features", "shape": [rows, 5], "datatype": "FP32", "data": given}
    return {"inputs": [one | more]}


def plain(*rows, **more):
    return {"instances": list(rows), **more}


def encoded(body):
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


CASES = {
    "a keyed row": (PLAIN, plain(ROW), {}),
    "several keyed rows": (PLAIN, plain(ROW, ROW | {"origin": None}), {}),
    "an unknown entity": (PLAIN, plain(ROW | {"tailnum": "N0"}), {}),
    "a raw row": (V2, tensor(), {}),
    "several raw rows": (V2, tensor(7), {}),
    "nulls": (V2, tensor(data=[None] * 5), {}),
    "a tensor a column": (
        V2,
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP64", "data": [1.5]}
                for name in (
                    "weather__temperature",
                    "weather__wind_speed",
                    "planes__seats",
                    "distance_miles",
                    "scheduled_hour",
                )
            ]
        },
        {},
    ),
    "an id in the body": (V2, tensor() | {"id": "mine 7"}, {}),
    "an id in the header": (V2, tensor(), {"X-Request-Id": "abc-1"}),
    "an id that is not sane": (PLAIN, plain(ROW), {"X-Request-Id": "a b\u00e9".encode("latin-1")}),
    "a traceparent": (PLAIN, plain(ROW), {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}),
    "time enough": (V2, tensor(), {"X-Request-Timeout": "30"}),
    "a request for binary output": (
        V2,
        tensor() | {"parameters": {"binary_data_output": True}},
        {},
    ),
    "not JSON": (PLAIN, b"{", {}),
    "not UTF-8": (V2, b'{"inputs": "\xff"}', {}),
    "nothing": (V2, b"", {}),
    "a repeated key": (PLAIN, b'{"instances": [], "instances": []}', {}),
    "a wrong field": (PLAIN, plain(ROW | {"distance_miles": "far"}), {}),
    "a missing field": (PLAIN, plain({"origin": "JFK"}), {}),
    "too many rows": (PLAIN, plain(*[ROW] * 51), {}),
    "too many raw rows": (V2, tensor(51), {}),
    "a wrong shape": (V2, tensor(data=[1.0]), {}),
    "an unknown model": ("/v2/models/nobody/infer", tensor(), {}),
    "an unknown version": ("/v2/models/flight_delay/versions/7/infer", tensor(), {}),
    "a number beyond a float": (V2, tensor(data=[1e39, 1, 2, 3, 4]), {}),
    "a large body": (PLAIN, plain(ROW, x="y" * 15_000), {}),
    "a body beyond the limit": (PLAIN, b" " * 20_001, {}),
    "a compressed body": (PLAIN, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
}
CHANGING = ("date", "x-request-id", "content-length", "connection")


@pytest.fixture
def server(repository, settings, log):
    return create_server(repository, settings=settings, log=log)


@pytest.fixture
def hot(server):
    with live(server) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def told(response):
    """What a response says, but for what no two say alike."""
    ids = response.headers.get("x-request-id", "")
    body = response.content.decode("latin-1").replace(ids, "ID") if ids else response.content
    headers = {n: v for n, v in response.headers.items() if n not in CHANGING}
    return response.status_code, headers, body


def test_both_lanes_say_the_same_of_every_request(hot, client, server):
    for name, (path, body, headers) in CASES.items():
        first = hot.post(path, content=encoded(body), headers=JSON | headers)
        second = client.post(path, content=encoded(body), headers=JSON | headers)
        assert told(first) == told(second), name
        assert first.status_code != 500, name
        for response in (first, second):
            given = headers.get("X-Request-Id")
            if given == "abc-1":
                assert response.headers["x-request-id"] == given, name
    assert {CASES[name][0] for name in CASES} >= {PLAIN, V2}
    assert server.lane.heads.kept_count > 0  # else the first lane was the second one too


def test_chunks_and_100_continue_get_the_same_answer_as_a_plain_body(hot, client):
    body = encoded(plain(ROW))
    wanted = told(client.post(PLAIN, content=body, headers=JSON))
    assert told(hot.post(PLAIN, content=iter([body[:10], body[10:]]), headers=JSON)) == wanted
    assert told(hot.post(PLAIN, content=body, headers=JSON | {"Expect": "100-continue"})) == wanted
    assert told(hot.post(f"{PLAIN}?a=b", content=body, headers=JSON)) == wanted


@pytest.mark.parametrize("lane", ["hot", "framework"])
def test_a_time_that_is_over_is_told_by_both_lanes(lane, hot, client):
    sender = hot if lane == "hot" else client
    late = JSON | {"X-Request-Timeout": "0.000001"}
    response = sender.post(V2, content=encoded(tensor()), headers=late)
    assert response.status_code == 504


def test_while_the_server_drains_it_is_not_ready(hot, server):
    assert hot.get("/v2/health/ready").status_code == 200
    server.lane.drain()
    response = hot.get("/v2/health/ready")
    assert (response.status_code, response.headers["connection"]) == (503, "close")
