"""Batches, streams and the model's information, through the web framework without a socket."""

import asyncio
import contextlib
import json

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from featurestore.errors import StoredValueBroken
from serving.dataplane import DataPlane
from serving.errors import NotFinite
from serving.plain.routes import routes

BATCH, STREAM = "/api/v1/infer/batch", "/api/v1/infer/stream"
RAW = [71.5, 12.0, 178.0, 2475.0, 8.0]


@pytest.fixture
def call(repository, settings):
    """One call of the routes: the response, read to its end."""

    def send(method, path, **options):
        async def asked():
            plane = DataPlane(settings)
            transport = httpx.ASGITransport(Starlette(routes=routes(plane, repository, settings)))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                response = await client.request(method, path, **options)
            plane.close()
            return response

        return asyncio.run(asked())

    return send


@pytest.fixture
def predict(booster):
    return lambda *rows: booster().inplace_predict(np.array(rows, np.float32)).tolist()


def events(response):
    """The events of a stream: name, id, data."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines())
              for block in response.text.removesuffix("\n\n").split("\n\n")]  # fmt: skip
    return [(b["event"], int(b["id"]), json.loads(b["data"])) for b in blocks]


def test_in_a_batch_a_bad_row_costs_only_itself_and_order_is_kept(call, instance, predict):
    rows = [
        instance(),
        instance(distance_miles=-1),
        5,
        instance(features={"planes__seats": "many"}),
        instance(features={"planes__seats": 100}),
    ]
    response = call("POST", BATCH, json={"instances": rows})
    body = response.json()
    found = body["predictions"]
    assert (response.status_code, body["failed"]) == (200, 3)
    assert [found[0]["prediction"], found[4]["prediction"]] == predict(
        RAW, [71.5, 12.0, 100, 2475.0, 8.0]
    )
    told = [(row["problems"][0]["row"], row["problems"][0]["field"]) for row in found[1:4]]
    assert told == [(1, "distance_miles"), (2, None), (3, "planes__seats")]
    assert found[1]["problems"][0] == {
        "row": 1,
        "field": "distance_miles",
        "value": "-1",
        "message": found[1]["error"],
        "remedy": "write a number, like 2475.0, at least 0, at most 10000",
    }
    assert found[3]["error"].startswith('row 3 has features.planes__seats = "many", text')


def test_a_batch_may_hold_bad_rows_alone(call):
    body = call("POST", BATCH, json={"instances": [5, {"features": 7}]}).json()
    assert body["failed"] == 2
    assert all("prediction" not in row for row in body["predictions"])


def test_raw_rows_of_a_batch_cost_only_themselves_too(call, predict):
    body = call("POST", BATCH, json={"features": [RAW, RAW[:2], [None] * 5]}).json()
    first, second, third = body["predictions"]
    assert [first["prediction"], third["prediction"]] == predict(RAW, [np.nan] * 5)
    assert second["error"] == "row 1 has 2 values; write 5, in declared order"


def test_an_entity_that_cannot_be_read_costs_only_its_row(call, repository, instance):
    reader = repository.served().reader
    read = reader.read

    def read_with_care(keys, at):
        if "N666" in keys["tailnum"]:
            raise StoredValueBroken("planes__seats", "DOUBLE", b"N666")
        return read(keys, at)

    reader.read = read_with_care
    rows = [instance(tailnum="N666" if n == 3 else "N123AA") for n in range(7)]
    body = call("POST", BATCH, json={"instances": rows}).json()
    assert body["failed"] == 1
    assert ["prediction" in row for row in body["predictions"]] == [n != 3 for n in range(7)]
    assert "planes__seats is no DOUBLE" in body["predictions"][3]["error"]


def test_a_prediction_that_is_no_number_costs_only_its_row(call, repository, monkeypatch):
    def predict(matrix):
        return np.where(matrix[:, 3] > 5000, np.nan, np.float32(0.5)).astype(np.float32)

    monkeypatch.setattr(type(repository.served().predictor), "predict", lambda _, m: predict(m))
    body = call("POST", BATCH, json={"features": [[*RAW[:3], m, 8] for m in (1, 9000, 2)]}).json()
    assert [row.get("prediction") for row in body["predictions"]] == [0.5, None, 0.5]
    assert str(NotFinite("0" * 64, 1, np.nan))[20:] in body["predictions"][1]["error"]


@pytest.mark.parametrize("path", [BATCH, STREAM])
@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b'{"instances": []}', 422, "'instances' is empty"),
        (b'{"instances": [' + b"{}," * 50 + b"{}]}", 413, "51 rows"),
        (b" " * 20_001, 413, "20,001 bytes"),
        (b'{"model": "arrivals", "instances": [{}]}', 404, "'arrivals' is not served"),
    ],
)
def test_a_wrong_body_is_refused_whole(call, path, content, status, said):
    response = call("POST", path, content=content, headers={"X-Request-Id": "r7"})
    assert (response.status_code, said in response.json()["error"]) == (status, True)
    assert response.headers["X-Request-Id"] == response.json()["request_id"] == "r7"


def test_a_stream_tells_all_rows_in_order_and_its_end(call, instance, predict):
    rows = [instance(distance_miles=100 * n) for n in range(-1, 22)]
    response = call("POST", f"{STREAM}?chunk_rows=10", json={"instances": rows})
    *chunks, last = events(response)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert [(name, number, data["first_row"]) for name, number, data in chunks] == [
        ("predictions", 10, 0),
        ("predictions", 20, 10),
        ("predictions", 23, 20),
    ]
    found = [row.get("prediction") for _, _, data in chunks for row in data["predictions"]]
    assert found == [None, *predict(*([71.5, 12.0, 178.0, 100 * n, 8.0] for n in range(22)))]
    assert last[:2] == ("end", 23)
    assert (last[2]["rows"], last[2]["failed"], last[2]["degraded"]) == (23, 1, False)
    assert {data["request_id"] for _, _, data in (*chunks, last)} == {
        response.headers["X-Request-Id"]
    }


def test_a_stream_may_be_lines_of_json(call):
    response = call(
        "POST",
        f"{STREAM}?chunk_rows=1",
        json={"features": [RAW, RAW]},
        headers={"Accept": "application/x-ndjson"},
    )
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    assert [(line["event"], line["id"]) for line in lines] == [
        ("predictions", 1),
        ("predictions", 2),
        ("end", 2),
    ]


def test_a_stream_goes_on_after_the_last_event_that_arrived(call):
    whole = events(call("POST", f"{STREAM}?chunk_rows=2", json={"features": [RAW] * 5}))
    headers = {"Last-Event-ID": "2"}
    rest = events(
        call("POST", f"{STREAM}?chunk_rows=2", json={"features": [RAW] * 5}, headers=headers)
    )
    assert [number for _, number, _ in rest] == [number for _, number, _ in whole[1:]]
    assert rest[0][2]["first_row"] == 2


@pytest.mark.parametrize("given", ["0", "-1", "x", "1e3", "9" * 30, "٣"])
def test_a_chunk_that_is_no_number_of_rows_is_refused(call, given):
    response = call("POST", STREAM, params={"chunk_rows": given}, json={"features": [RAW]})
    assert response.status_code == 422
    assert response.json()["problems"][0]["field"] == "chunk_rows"


class Caller:
    """Calls an ASGI application and looks at each piece as it is sent."""

    def __init__(self, app, body):
        self._app, self._body = app, body
        self.pieces: asyncio.Queue = asyncio.Queue()
        self.leaves = asyncio.Event()
        self._asked = False

    def call(self, path):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn says
            "method": "POST",
            "path": path.split("?")[0],
            "query_string": path.partition("?")[2].encode(),
            "headers": [],
        }
        return asyncio.ensure_future(self._app(scope, self._receive, self._send))

    async def event(self):
        return await asyncio.wait_for(self.pieces.get(), 5)

    async def _receive(self):
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.body" and message.get("body"):
            await self.pieces.put(message["body"])


@pytest.fixture
def gated(repository, settings):
    """A plane that computes a query only when it is let; counts those it has begun."""

    class Gated:
        def __init__(self):
            self.plane, self.begun = DataPlane(settings), 0
            self.may = asyncio.Semaphore(0)

        async def infer(self, query):
            await self.may.acquire()
            self.begun += 1
            return await self.plane.infer(query)

    return Gated


def test_the_first_event_is_there_before_the_last_is_computed(gated, repository, settings):
    async def watch():
        plane = gated()
        app = Starlette(routes=routes(plane, repository, settings))
        caller = Caller(app, json.dumps({"features": [RAW] * 30}).encode())
        running = caller.call(f"{STREAM}?chunk_rows=10")
        for number in range(1, 4):
            plane.may.release()
            assert f"id: {10 * number}\n".encode() in await caller.event()
            assert plane.begun == number  # the next one is not even begun
        assert b"event: end" in await caller.event()
        await running
        plane.plane.close()

    asyncio.run(watch())


def test_when_the_caller_leaves_nothing_more_is_computed(gated, repository, settings):
    async def watch():
        plane = gated()
        app = Starlette(routes=routes(plane, repository, settings))
        caller = Caller(app, json.dumps({"features": [RAW] * 50}).encode())
        running = caller.call(f"{STREAM}?chunk_rows=1")
        plane.may.release()
        await caller.event()
        caller.leaves.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(running, 5)
        for _ in range(49):
            plane.may.release()
        await asyncio.sleep(0.05)
        assert plane.begun == 1
        plane.plane.close()

    asyncio.run(watch())


def test_a_stream_whose_store_fails_on_the_way_says_so_and_has_no_end(call, repository, instance):
    reader = repository.served().reader
    read, reads = reader.read, []

    def read_twice(keys, at):
        reads.append(1)
        if len(reads) > 2:
            raise ConnectionResetError
        return read(keys, at)

    from headrace.errors import StorageFailed

    def read_then_fail(keys, at):
        try:
            return read_twice(keys, at)
        except ConnectionResetError as error:
            raise StorageFailed("read", "online.db", "gone") from error

    reader.read = read_then_fail
    rows = [instance() for _ in range(5)]
    told = events(call("POST", f"{STREAM}?chunk_rows=1", json={"instances": rows}))
    assert [name for name, _, _ in told] == ["predictions", "predictions", "error"]
    assert "features cannot be read" in told[-1][2]["error"]
    assert call("POST", STREAM, json={"instances": rows}).status_code == 503


def test_info_tells_what_the_model_takes_gives_and_comes_from(call, store, repository):
    body = call("GET", "/api/v1/model/info").json()
    assert (body["model"], body["digest"], body["revision"]) == (
        "flight_delay",
        store.digests[0],
        1,
    )
    fields = {field["name"]: field for field in body["inputs"]["fields"]}
    assert fields["distance_miles"]["at_most"] == 10_000
    assert fields["origin"]["is_key"]
    names = [feature["name"] for feature in body["inputs"]["features"]]
    assert tuple(names) == repository.served().predictor.columns
    assert body["inputs"]["features"][-1] == {
        "name": "scheduled_hour",
        "from": "transform",
        "source": "flights.scheduled_hour",
    }
    assert body["output"] == {
        "name": "prediction",
        "type": "float32",
        "at_least": 0.0,
        "at_most": 1.0,
    }
    assert body["plan"]["views"][0] | {"features": ...} == {
        "view": "weather",
        "join_keys": [{"name": "origin", "dtype": "STRING"}],
        "ttl_seconds": 3600,
        "features": ...,
    }
    assert (body["card"], body["metrics"]) == ("# A tiny model", {"roc_auc": 0.5})
    assert body["lineage"]["training_rows"] == 300


def test_info_of_another_model_is_not_here(call):
    assert call("GET", "/api/v1/model/info?model=arrivals").status_code == 404
