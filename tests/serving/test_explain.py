import asyncio
import threading

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from serving.dataplane import DataPlane
from serving.errors import RuntimeFailed
from serving.explain import Explainer
from serving.plain import PlainCodec
from serving.predictor import Predictor
from serving.settings import ServerSettings
from serving.v2.codec import V2Codec

PLAIN, V2 = "/api/v1/explain", "/v2/models/flight_delay/explain"


@pytest.fixture
def explain(repository):
    """Sends requests to a server that explains, all at once; returns their responses."""

    def send(*requests, **options):
        async def whole():
            settings = ServerSettings(**options)
            plane = DataPlane(settings)
            explainer = Explainer(plane, settings)
            codecs = PlainCodec(repository, settings), V2Codec(repository, settings)
            transport = httpx.ASGITransport(Starlette(routes=explainer.routes(*codecs)))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                sent = [client.post(path, json=body) for path, body in requests]
                responses = await asyncio.gather(*sent)
            explainer.close()
            plane.close()
            return responses

        return asyncio.run(whole())

    return send


def sigmoid(margin):
    return 1 / (1 + np.exp(-margin))


def test_contributions_lead_from_the_base_to_the_prediction(explain, instance):
    (response,) = explain((PLAIN, {"instances": [instance(), instance(tailnum=None)]}))
    body = response.json()
    assert (body["method"], body["scale"], body["degraded"]) == ("tree_shap", "log_odds", False)
    for row in body["explanations"]:
        margin = row["base"] + sum(row["contributions"].values())
        assert margin == pytest.approx(row["margin"], abs=1e-6)
        assert sigmoid(margin) == pytest.approx(row["prediction"], abs=1e-6)


def test_it_explains_the_prediction_of_infer_with_the_same_reads(explain, instance, client):
    body = {"instances": [instance(), instance(origin="XXX")]}
    (response,) = explain((PLAIN, body))
    told, infer = response.json(), client.post("/api/v1/infer", json=body).json()
    same = ("prediction", "features")
    assert [[row[n] for n in same] for row in told["explanations"]] == [
        [row[n] for n in same] for row in infer["predictions"]
    ]
    assert told["digest"] == infer["digest"]
    first, second = (row["values"] for row in told["explanations"])
    assert (first["weather__temperature"], second["weather__temperature"]) == (71.5, None)


def test_contributions_are_xgboosts_own(explain, instance, booster, plan):
    import xgboost as xgb

    (response,) = explain((PLAIN, {"instances": [instance()]}))
    (row,) = response.json()["explanations"]
    matrix = xgb.DMatrix(np.array([[71.5, 12, 178, 2475, 8]], np.float32))
    wanted = booster().predict(matrix, pred_contribs=True)[0]
    assert [row["contributions"][name] for name in plan.columns] == pytest.approx(wanted[:-1])
    assert row["base"] == pytest.approx(wanted[-1])


def test_the_v2_protocol_says_the_same_as_tensors(explain, instance):
    values = [71.5, 12, 178, 2475, 8]
    features = {"name": "features", "shape": [1, 5], "datatype": "FP32", "data": values}
    plain, v2 = explain(
        (PLAIN, {"instances": [instance()]}), (V2, {"id": "a", "inputs": [features]})
    )
    (row,), body = plain.json()["explanations"], v2.json()
    outputs = {output["name"]: output for output in body["outputs"]}
    assert (body["id"], body["parameters"]["method"]) == ("a", "tree_shap")
    assert outputs["contributions"]["shape"] == [1, 5]
    assert outputs["contributions"]["data"] == list(row["contributions"].values())
    assert outputs["base"]["data"] == [row["base"]]


def test_what_infer_refuses_is_refused_in_the_words_of_its_protocol(explain, instance):
    wrong = {"instances": [instance(distance_miles=-1)]}
    plain, v2, other, many = explain(
        (PLAIN, wrong),
        (V2, {"inputs": []}),
        ("/v2/models/other/explain", {"inputs": []}),
        (PLAIN, {"instances": [instance()] * 3}),
        explain_max_rows=2,
    )
    assert (plain.status_code, plain.json()["problems"][0]["field"]) == (422, "distance_miles")
    assert (v2.status_code, list(v2.json())) == (422, ["error"])
    assert other.status_code == 404
    assert (many.status_code, "3 rows is more than the 2" in many.json()["error"]) == (413, True)


def test_one_is_explained_at_a_time_and_too_many_are_sent_away(explain, instance, monkeypatch):
    at_once, most = threading.Semaphore(1), []
    explained = Predictor.explain

    def slow(self, matrix):
        most.append(at_once.acquire(blocking=False))
        try:
            return explained(self, matrix)
        finally:
            at_once.release()

    monkeypatch.setattr(Predictor, "explain", slow)
    monkeypatch.setattr("serving.explain._MOST_WAITING", 4)
    responses = explain(*[(PLAIN, {"instances": [instance()]})] * 6)
    assert sorted(r.status_code for r in responses) == [200] * 4 + [503] * 2
    assert all(most)
    busy = next(r for r in responses if r.status_code == 503)
    assert int(busy.headers["Retry-After"]) >= 1


def test_a_library_that_fails_is_told_with_the_servers_status(explain, instance, monkeypatch):
    def broken(self, matrix):
        raise RuntimeFailed("explain", "no")

    monkeypatch.setattr(Predictor, "explain", broken)
    (response,) = explain((PLAIN, {"instances": [instance()]}))
    assert (response.status_code, "could not explain" in response.json()["error"]) == (500, True)
