import json
import re

import numpy as np
import pytest

from serving.app import create_server
from serving.results.batch import Results
from serving.results.cache import ResultCache
from tests.serving.conftest import Client

URL = "/api/v1/infer"


def test_a_good_row_is_answered_with_prediction_status_and_provenance(client, instance, store):
    response = client.post(URL, json={"instances": [instance()]})
    body = response.json()
    assert response.status_code == 200
    assert body["digest"] == store.digests[0]
    assert (body["model"], body["revision"]) == ("flight_delay", 1)
    assert body["predictions"][0]["features"] == {"weather": "present", "planes": "present"}


def test_the_prediction_is_the_models_own_bit_for_bit(client, instance, booster):
    wanted = booster().inplace_predict(np.array([[71.5, 12, 178, 2475, 8]], np.float32))
    body = client.post(URL, json={"instances": [instance()]}).json()
    assert np.float32(body["predictions"][0]["prediction"]) == wanted[0]


def test_rows_are_answered_in_their_order(client, instance):
    rows = [instance(origin=origin) for origin in ("JFK", "LGA", "XXX", None)]
    together = client.post(URL, json={"instances": rows}).json()["predictions"]
    alone = [client.post(URL, json={"instances": [r]}).json()["predictions"][0] for r in rows]
    assert together == alone
    states = [row["features"]["weather"] for row in together]
    assert states == ["present", "present", "never_seen", "never_seen"]


def test_two_zones_of_one_moment_are_one_moment(client, instance):
    rows = [
        instance(scheduled_departure="2013-08-01T12:00:00Z"),
        instance(scheduled_departure="2013-08-01T08:00:00-04:00"),
    ]
    first, second = client.post(URL, json={"instances": rows}).json()["predictions"]
    assert first == second


FIELD_CASES = {
    "a missing field": (
        {"distance_miles": ...},
        ["row 0 has no field 'distance_miles'", "write a number, like 2475.0"],
    ),
    "a missing key": ({"origin": ...}, ["no field 'origin'", 'a string, like "JFK" (or null)']),
    "a misspelt field": ({"orgin": "JFK", "origin": ...}, ['"orgin"', "did you mean 'origin'?"]),
    "an unknown field": ({"zzz": 1}, ['unknown field "zzz"', "the fields are distance_miles"]),
    "text for a number": ({"distance_miles": "2475"}, ['distance_miles = "2475" is text']),
    "true for a number": ({"distance_miles": True}, ["distance_miles = true is a boolean"]),
    "null for a number": ({"distance_miles": None}, ["distance_miles = null is null"]),
    "a list for a number": ({"distance_miles": [1]}, ["distance_miles = [1] is a list"]),
    "an object for a key": ({"origin": {"a": 1}}, ['origin = {"a":1} is an object']),
    "a number for text": ({"origin": 7}, ["origin = 7 is a whole number", "a string"]),
    "too small": ({"distance_miles": -1}, ["= -1 is too small", "at least 0, at most 10000"]),
    "too large": ({"distance_miles": 10_001.5}, ["= 10001.5 is too large", "at most 10000"]),
    "beyond a float": ({"distance_miles": 10**30}, ["is too large"]),
    "a time without zone": (
        {"scheduled_departure": "2013-08-01T12:00:00"},
        ["has no zone", '"2013-08-01T12:00:00Z"'],
    ),
    "no time at all": ({"scheduled_departure": "noon"}, ['"noon" is not a time']),
    "a time as a number": ({"scheduled_departure": 1375358400}, ["is a whole number"]),
    "a time before year 1": (
        {"scheduled_departure": "0001-01-01T00:00:00+14:00"},
        ["is not a time"],
    ),
    "a very long value": ({"distance_miles": "9" * 500}, ['"99999', "..."]),
}


@pytest.mark.parametrize("case", FIELD_CASES)
def test_a_wrong_field_is_refused_by_name_value_and_remedy(client, instance, case):
    changes, said = FIELD_CASES[case]
    response = client.post(URL, json={"instances": [instance(**changes)]})
    assert response.status_code == 422
    for words in said:
        assert words in response.json()["error"]


BODY_CASES = {
    "nothing": (b"", 400, "not JSON"),
    "no JSON": (b"origin=JFK", 400, "not JSON"),
    "a cut body": (b'{"instances": [', 400, "not JSON"),
    "bad UTF-8": (b'{"instances": "\xff"}', 400, "not JSON"),
    "NaN": (b'{"instances": [{"distance_miles": NaN}]}', 400, "not JSON"),
    "Infinity": (b'{"instances": [{"distance_miles": -Infinity}]}', 400, "not JSON"),
    "beyond a double": (b'{"instances": [{"distance_miles": 1e999}]}', 400, "out of range"),
    "a long number": (b'{"instances": [' + b"9" * 5000 + b"]}", 400, "out of range"),
    "deep nesting": (b"[" * 10_000, 400, "nested too deeply"),
    "a lone surrogate": (b'{"instances": "\\ud800"}', 400, "not JSON"),
    "a key twice": (b'{"instances": [{"origin": "JFK", "origin": "LGA"}]}', 400, "'origin'"),
    "a key twice, escaped": (b'{"instances": [], "\\u0069nstances": []}', 400, "'instances'"),
    "a list": (b"[]", 422, "the body is not an object"),
    "no instances": (b"{}", 422, "'instances' is missing"),
    "an empty instance": (b'{"instance": {}}', 422, "row 0 has no field 'origin'"),
    "a misspelt form": (b'{"instence": {}}', 422, "did you mean 'instance'?"),
    "null": (b'{"instances": null}', 422, "'instances' is missing"),
    "an object": (b'{"instances": {"origin": "JFK"}}', 422, "'instances' is not a list"),
    "no rows": (b'{"instances": []}', 422, "'instances' is empty"),
    "a row that is a number": (b'{"instances": [5]}', 422, "row 0 is 5; write an object"),
    "too many rows": (b'{"instances": [' + b"{}," * 50 + b"{}]}", 413, "51 rows is more than"),
    "too many bytes": (b" " * 20_001, 413, "20,001 bytes is more than the 20,000 bytes"),
}


@pytest.mark.parametrize("case", BODY_CASES)
def test_a_wrong_body_is_refused_with_its_reason(client, case):
    body, status, said = BODY_CASES[case]
    response = client.post(URL, content=body)
    assert (response.status_code, said in response.json()["error"]) == (status, True)


def test_every_problem_is_listed_with_row_and_field(client, instance):
    rows = [instance(), instance(origin=1, distance_miles=-5), instance(distance_miles="far")]
    body = client.post(URL, json={"instances": rows}).json()
    found = [(p["row"], p["field"]) for p in body["problems"]]
    assert found == [(1, "origin"), (1, "distance_miles"), (2, "distance_miles")]
    assert "(2 more in 'problems')" in body["error"]


def test_a_body_without_a_length_is_cut_off_at_the_limit(client):
    async def chunks():
        for _ in range(5):
            yield b" " * 5_000

    response = client.post(URL, content=chunks())
    assert response.status_code == 413
    assert response.headers["Connection"] == "close"


def test_a_compressed_body_is_refused_by_its_header(client):
    response = client.post(URL, content=b"{}", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "gzip" in response.json()["error"]


def test_a_sane_request_id_comes_back_in_header_and_body(client, instance):
    headers = {"X-Request-Id": "web-17.a"}
    response = client.post(URL, json={"instances": [instance()]}, headers=headers)
    assert response.headers["X-Request-Id"] == response.json()["request_id"] == "web-17.a"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é".encode()])
def test_another_request_id_is_replaced(client, given):
    response = client.post(URL, content=b"{}", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f-]{12,32}", response.headers["X-Request-Id"])
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


def test_get_says_which_method_is_right(client):
    response = client.get(URL)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert "/docs" in response.json()["error"]


def test_an_unknown_path_is_told_in_json(client):
    response = client.get("/api/v2/infer")
    assert response.status_code == 404
    assert json.loads(response.content)["error"].startswith("/api/v2/infer is not here")


def test_an_answer_that_was_kept_says_so_and_is_the_same(repository, settings, log):
    results = Results(ResultCache(1_000_000, 60))
    client = Client(create_server(repository, settings=settings, log=log, results=results).app)
    first, second = (client.post(URL, json={"features": [[1, 2, 3, 4, 5]]}).json() for _ in "12")
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["predictions"] == second["predictions"]
    assert client.get("/health").json()["result_cache"]["hit_rate"] == 0.5
