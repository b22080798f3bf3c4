"""Jobs as callers see them: over HTTP, on a real model, data plane and store."""

import asyncio
import io
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import numpy as np
import pyarrow as pa
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse

from headrace.errors import HeadraceError
from headrace.release import require_release
from serving.dataplane import DataPlane, ServedModel
from serving.errors import ModelNotServed, OnlineStoreFailing, http_status
from serving.jobs.service import JobService
from serving.metrics import Metrics
from serving.predictor import load_predictor
from serving.schema import RequestSchema
from serving.settings import ServerSettings

URL = "/api/v1/jobs"


class Models:
    """One served model that a test can replace."""

    def __init__(self, model):
        self.model, self.endpoints = model, {"flight_delay": model}

    def served(self, name=None, version=None):
        if name not in (None, "flight_delay"):
            raise ModelNotServed("model", name, "flight_delay")
        return self.model


class Slow:
    """A data plane that can be held back, and that remembers what it was asked."""

    def __init__(self, plane):
        self.plane, self.asked, self.fails = plane, [], []
        self.go_on, self.reached = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def infer(self, query):
        self.reached.set()
        await self.go_on.wait()
        if self.fails:
            raise self.fails.pop()
        self.asked.append(query)
        return await self.plane.infer(query)


async def told(_, error):
    return JSONResponse({"error": str(error)}, http_status(error))


@pytest.fixture
def serve_model(store, open_reader):
    """A factory of served models: another seed, another bundle."""

    def build(seed=0):
        store.release(store.bundle(seed=seed))
        predictor = load_predictor(f"{store.root}/bundles", store.digests[-1])
        release = require_release(store.root, "flight_delay")
        schema = RequestSchema(predictor.plan)
        return ServedModel(release, predictor, open_reader(predictor.plan), schema)

    return build


@pytest.fixture
def settings():
    return ServerSettings(
        jobs_max_rows=300, jobs_max_body_bytes=60_000, jobs_part_rows=16, jobs_max_queued=3
    )


@pytest.fixture
def talk(jobs_uri, serve_model, settings):
    """Runs a conversation with a server of jobs; calls are given the client and the server."""

    class Server:
        pass

    @asynccontextmanager
    async def serving(start=True):
        server = Server()
        server.plane, server.models = Slow(DataPlane(settings)), Models(serve_model())
        server.metrics = Metrics()
        server.jobs = JobService(jobs_uri, server.plane, server.models, settings, server.metrics)
        app = Starlette(routes=server.jobs.routes(), exception_handlers={HeadraceError: told})
        transport = httpx.ASGITransport(app)
        async with AsyncExitStack() as stack:
            stack.callback(server.metrics.close)
            stack.callback(server.plane.plane.close)
            stack.callback(server.jobs.close)
            server.start = lambda: stack.enter_async_context(server.jobs.running())
            if start:
                await server.start()
            client = httpx.AsyncClient(transport=transport, base_url="http://test")
            yield await stack.enter_async_context(client), server

    def run(conversation, **options):
        async def whole():
            async with asyncio.timeout(30):
                async with serving(**options) as (client, server):
                    return await conversation(client, server)

        return asyncio.run(whole())

    return run


async def ended(client, location):
    """The job at ``location`` once it has ended."""
    while True:
        job = (await client.get(location)).json()
        if job["ended_at"]:
            return job
        await asyncio.sleep(0.01)


def test_every_row_is_in_the_result_once_and_in_its_order(talk, instance, booster):
    rows = [instance(distance_miles=number) for number in range(100)]
    rows[17] = instance(distance_miles=-1)
    rows[40] = instance(origin=...)

    async def conversation(client, server):
        accepted = await client.post(URL, json={"instances": rows})
        job = await ended(client, accepted.headers["Location"])
        result = await client.get(job["result"])
        arrow = await client.get(
            job["result"], headers={"Accept": "application/vnd.apache.arrow.stream"}
        )
        return accepted, job, result, arrow, server.models.model.predictor.digest

    accepted, job, result, arrow, digest = talk(conversation)
    assert accepted.status_code == 202
    assert (job["state"], job["progress"], job["predicted"], job["refused"]) == ("done", 1, 98, 2)
    assert job["digest"] == result.headers["X-Model-Digest"] == digest
    lines = [json.loads(line) for line in result.text.splitlines()]
    assert [line["row"] for line in lines] == list(range(100))
    matrix = np.array([[71.5, 12, 178, miles, 8] for miles in range(100)], np.float32)
    wanted = booster().inplace_predict(matrix)
    good = [line for line in lines if "prediction" in line]
    assert all(np.float32(line["prediction"]) == wanted[line["row"]] for line in good)
    assert good[0]["features"] == {"weather": "present", "planes": "present"}
    assert {line["row"]: line["problems"][0]["field"] for line in lines if "error" in line} == {
        17: "distance_miles",
        40: "origin",
    }
    assert lines[17]["problems"][0]["row"] == 17
    assert lines[17]["error"].startswith("row 17: distance_miles = -1 is too small")
    table = pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()
    assert table.schema.metadata[b"digest"].decode() == digest
    assert table["row"].to_pylist() == list(range(100))
    assert table["prediction"].null_count == 2
    assert table["error"][17].as_py() == lines[17]["error"]
    assert table["status__weather"][40].as_py() is None


def test_a_row_that_says_two_things_costs_only_itself(talk, instance):
    good = json.dumps(instance())
    bad = good.replace("{", '{"origin": "LGA", ', 1)
    body = f'{{"instances": [{good}, {bad}, {good}]}}'

    async def conversation(client, server):
        accepted = await client.post(URL, content=body)
        job = await ended(client, accepted.headers["Location"])
        return job, (await client.get(job["result"])).text.splitlines()

    job, lines = talk(conversation)
    assert (job["predicted"], job["refused"]) == (2, 1)
    assert "key 'origin' is there twice" in json.loads(lines[1])["error"]
    assert json.loads(lines[0])["prediction"] == json.loads(lines[2])["prediction"]


def test_jobs_wait_in_a_queue_that_tells_their_place_and_can_be_cancelled(talk, instance):
    body = {"instances": [instance()]}

    async def conversation(client, server):
        low = (await client.post(f"{URL}?priority=low", json=body)).json()
        urgent = (await client.post(f"{URL}?priority=urgent", json=body)).json()
        again = (await client.get(f"{URL}/{low['id']}")).json()
        early = await client.get(f"{URL}/{low['id']}/result")
        cancelled = (await client.delete(f"{URL}/{low['id']}")).json()
        await server.start()
        done = await ended(client, f"{URL}/{urgent['id']}")
        late = await client.delete(f"{URL}/{urgent['id']}")
        return low, urgent, again, early, cancelled, done, late

    low, urgent, again, early, cancelled, done, late = talk(conversation, start=False)
    assert (low["state"], low["place"], urgent["place"], again["place"]) == ("queued", 1, 1, 2)
    assert (early.status_code, "is queued and has no result" in early.text) == (409, True)
    assert cancelled["state"] == "cancelled"
    assert (done["state"], late.status_code) == ("done", 409)


def test_a_job_that_runs_stops_at_its_next_part_when_it_is_cancelled(talk, instance):
    body = {"instances": [instance()] * 64}

    async def conversation(client, server):
        server.plane.go_on.clear()
        job = (await client.post(URL, json=body)).json()
        await server.plane.reached.wait()
        await client.delete(f"{URL}/{job['id']}")
        server.plane.go_on.set()
        after = (await client.post(URL, json={"instances": [instance()]})).json()
        await ended(client, f"{URL}/{after['id']}")
        return server.plane.asked, (await client.get(f"{URL}/{job['id']}")).json()

    asked, job = talk(conversation)
    assert [query.rows for query in asked] == [16, 1]
    assert (job["state"], job["result"]) == ("cancelled", None)


def test_an_expired_job_is_never_computed(talk, instance):
    async def conversation(client, server):
        late = await client.post(f"{URL}?deadline_seconds=0.05", json={"instances": [instance()]})
        await asyncio.sleep(0.1)
        await server.start()
        return await ended(client, late.headers["Location"]), server.plane.asked

    job, asked = talk(conversation, start=False)
    assert (job["state"], job["reason"]) == ("expired", "0 of 1 parts were done at its deadline")
    assert asked == []


def test_an_urgent_job_passes_one_that_runs_and_both_are_whole(talk, instance, monkeypatch):
    monkeypatch.setattr("serving.jobs.runner._LOOK_SECONDS", 0)

    async def conversation(client, server):
        server.plane.go_on.clear()
        long = (await client.post(URL, json={"instances": [instance()] * 160})).json()
        await server.plane.reached.wait()
        urgent = await client.post(f"{URL}?priority=urgent", json={"instances": [instance()] * 20})
        server.plane.go_on.set()
        urgent, long = [await ended(client, f"{URL}/{job['id']}") for job in (urgent.json(), long)]
        return urgent, long

    urgent, long = talk(conversation)
    assert urgent["ended_at"] < long["ended_at"]
    assert (urgent["predicted"], long["predicted"]) == (20, 160)


def test_a_store_of_features_that_fails_is_waited_for(talk, instance):
    async def conversation(client, server):
        server.plane.fails = [OnlineStoreFailing("down")] * 2
        accepted = await client.post(URL, json={"instances": [instance()]})
        return await ended(client, accepted.headers["Location"])

    assert talk(conversation)["state"] == "done"


def test_a_failure_that_does_not_heal_ends_the_job_with_its_reason(talk, instance):
    class Broken(HeadraceError):
        pass

    async def conversation(client, server):
        server.plane.fails = [Broken("the model is broken")]
        accepted = await client.post(URL, json={"instances": [instance()]})
        return await ended(client, accepted.headers["Location"])

    job = talk(conversation)
    assert (job["state"], job["reason"]) == ("failed", "the model is broken")


def test_a_job_that_began_stays_on_its_bundle_when_the_release_moves(talk, instance, serve_model):
    async def conversation(client, server):
        first = server.models.model.predictor.digest
        server.plane.go_on.clear()
        accepted = await client.post(URL, json={"instances": [instance()] * 64})
        await server.plane.reached.wait()
        server.models.model = serve_model(seed=1)
        server.plane.go_on.set()
        job = await ended(client, accepted.headers["Location"])
        lines = (await client.get(job["result"])).text.splitlines()
        return first, job, {json.loads(line)["version"] for line in lines}

    first, job, versions = talk(conversation)
    assert (job["digest"], versions) == (first, {first[:12]})


def test_a_stopped_server_puts_its_job_back_and_the_next_goes_on(talk, instance):
    async def stopped(client, server):
        server.plane.go_on.clear()
        job = (await client.post(URL, json={"instances": [instance()] * 64})).json()
        await server.plane.reached.wait()
        return job["id"]

    async def next_one(client, server):
        began = time.monotonic()
        job = await ended(client, f"{URL}/{job_id}")
        return job, time.monotonic() - began

    job_id = talk(stopped)
    job, seconds = talk(next_one)
    assert (job["state"], job["predicted"]) == ("done", 64)
    assert seconds < 5  # a job of a dead process would wait 10 s for its lease to end


def test_a_fault_of_ours_does_not_end_the_computing_of_jobs(talk, instance, monkeypatch, caplog):
    monkeypatch.setattr("serving.jobs.runner._PAUSES", (0.01, 0.01))

    async def conversation(client, server):
        claim, faults = server.jobs.queue.claim, [KeyError("a fault")]

        def faulty(*given, **options):
            if faults:
                raise faults.pop()
            return claim(*given, **options)

        monkeypatch.setattr(server.jobs.queue, "claim", faulty)
        await server.start()
        accepted = await client.post(URL, json={"instances": [instance()]})
        return await ended(client, accepted.headers["Location"])

    assert talk(conversation, start=False)["state"] == "done"
    assert "jobs: a fault" in caplog.text


def test_the_same_key_is_the_same_job(talk, instance):
    async def conversation(client, server):
        headers = {"Idempotency-Key": "monthly-2013-08"}
        body = {"instances": [instance()]}
        first = await client.post(URL, json=body, headers=headers)
        second = await client.post(URL, json=body, headers=headers)
        other = await client.post(URL, json={"instances": [instance()] * 2}, headers=headers)
        return first, second, other

    first, second, other = talk(conversation)
    assert first.json()["id"] == second.json()["id"]
    assert (second.status_code, other.status_code) == (202, 422)


def test_the_list_goes_page_by_page_from_the_newest(talk, instance):
    async def conversation(client, server):
        made = []
        for _ in range(3):
            made.append((await client.post(URL, json={"instances": [instance()]})).json()["id"])
            await asyncio.sleep(0.002)  # ids are of one millisecond each
        first = (await client.get(f"{URL}?limit=2")).json()
        second = (await client.get(first["next"])).json()
        return made, first, second

    made, first, second = talk(conversation, start=False)
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None


def test_how_jobs_waited_and_ended_is_counted(talk, instance):
    async def conversation(client, server):
        body = {"instances": [instance(), instance(distance_miles=-1)]}
        jobs = [(await client.post(URL, json=body)).json()["id"] for _ in range(2)]
        await client.delete(f"{URL}/{jobs[1]}")
        server.jobs.queue.sweep(["flight_delay"])
        waiting = server.metrics.text().decode()
        await server.start()
        await ended(client, f"{URL}/{jobs[0]}")
        return waiting, server.metrics.text().decode()

    waiting, after = talk(conversation, start=False)
    model = 'model="flight_delay"'
    assert f"jobs_queued{{{model}}} 1" in waiting
    for state in ("done", "cancelled"):
        assert f'jobs_ended_total{{{model},state="{state}"}} 1' in after
    assert f'job_rows_total{{{model},outcome="refused"}} 1' in after
    assert f'job_wait_seconds_count{{{model},priority="normal"}} 1' in after


REFUSED = {
    "no rows": ("", b'{"instances": []}', 422, "'instances' is empty"),
    "no JSON": ("", b'{"instances": [', 400, "not JSON"),
    "a key twice": (
        "",
        b'{"instances": [1], "instances": [2]}',
        400,
        "key of the body is there twice",
    ),
    "another field": ("", b'{"instances": [1], "rows": []}', 422, 'unknown field "rows"'),
    "too many rows": ("", b'{"instances": [' + b"0," * 300 + b"0]}", 413, "301 rows is more than"),
    "too many bytes": ("", b" " * 60_001, 413, "60,001 bytes is more than the 60,000"),
    "a wrong priority": ("?priority=high", b"{}", 422, "'high' is none of urgent, normal and low"),
    "a wrong deadline": ("?deadline_seconds=soon", b"{}", 422, "'soon' is no number from 0.001"),
    "an unknown option": ("?prio=low", b"{}", 422, "prio is unknown; write priority"),
    "an unknown model": ("", b'{"instances": [1], "model": "x"}', 404, "'flight_delay'"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("jobs_uri", ["sqlite"], indirect=True)
def test_a_wrong_job_is_refused_with_its_reason(talk, case):
    options, body, status, said = REFUSED[case]
    response = talk(lambda client, _: client.post(URL + options, content=body))
    assert (response.status_code, said in response.json()["error"]) == (status, True)


@pytest.mark.parametrize("jobs_uri", ["sqlite"], indirect=True)
def test_a_full_queue_and_unknown_jobs_and_formats_are_told(talk, instance):
    body = {"instances": [instance()]}

    async def conversation(client, server):
        jobs = [await client.post(URL, json=body) for _ in range(4)]
        unknown = await client.get(f"{URL}/{'0' * 32}")
        job_id = jobs[0].json()["id"]
        pickles = await client.get(f"{URL}/{job_id}/result", headers={"Accept": "text/csv"})
        page = await client.get(f"{URL}?limit=0")
        return [job.status_code for job in jobs], unknown, pickles, page

    statuses, unknown, pickles, page = talk(conversation, start=False)
    assert statuses == [202, 202, 202, 503]
    assert (unknown.status_code, pickles.status_code, page.status_code) == (404, 406, 422)
    assert "application/vnd.apache.arrow.stream" in pickles.json()["error"]
