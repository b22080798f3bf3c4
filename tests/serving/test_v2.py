import numpy as np
import pytest

from serving.errors import FieldsRefused
from serving.v2.former import infer

MODEL = "/v2/models/flight_delay"
ROW = [71.5, 12.0, 178.0, 2475.0, 8.0]


@pytest.fixture
def columns(plan):
    return list(plan.columns)


@pytest.fixture
def tensors(columns):
    """A factory of one tensor for each column; a change of one is by its name."""

    def build(rows=1, shape=None, **changes):
        made = {
            name: {
                "name": name,
                "shape": shape or [rows],
                "datatype": "FP32",
                "data": [value] * rows,
            }
            for name, value in zip(columns, ROW, strict=True)
        }
        for name, change in changes.items():
            made[name] = made[name] | change
        return {"inputs": list(made.values())}

    return build


def features(data, shape, **more):
    return {
        "inputs": [{"name": "features", "shape": shape, "datatype": "FP32", "data": data}],
        **more,
    }


def test_one_tensor_a_column_is_answered_bit_for_bit(client, tensors, booster, store):
    body = client.post(f"{MODEL}/infer", json=tensors(rows=3) | {"id": "call 1"}).json()
    wanted = booster().inplace_predict(np.array([ROW] * 3, np.float32))
    assert body["id"] == "call 1"
    assert (body["model_name"], body["model_version"]) == ("flight_delay", store.digests[0][:12])
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "FP32", [3])
    assert np.array(output["data"], np.float32).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("data", [[*ROW, *ROW], [ROW, ROW]], ids=["flat", "nested"])
def test_one_tensor_of_all_features_gives_the_same_answer(client, tensors, data):
    apart = client.post(f"{MODEL}/infer", json=tensors(rows=2)).json()
    together = client.post(f"{MODEL}/infer", json=features(data, [2, 5])).json()
    assert together["outputs"] == apart["outputs"]


def test_columns_of_shape_n_by_one_and_any_order_are_the_same(client, tensors):
    flat = client.post(f"{MODEL}/infer", json=tensors(rows=2)).json()
    body = tensors(rows=2, shape=[2, 1])
    body["inputs"].reverse()
    assert client.post(f"{MODEL}/infer", json=body).json()["outputs"] == flat["outputs"]


def test_null_is_a_missing_value(client, booster):
    row = [None, 12, 178, 2475, 8]
    body = client.post(f"{MODEL}/infer", json=features(row, [1, 5])).json()
    wanted = booster().inplace_predict(np.array([row], np.float32))
    assert np.float32(body["outputs"][0]["data"][0]) == wanted[0]


def test_whole_numbers_may_be_sent_as_integers(client, tensors):
    whole = tensors(planes__seats={"datatype": "INT64", "data": [178]})
    assert (
        client.post(f"{MODEL}/infer", json=whole).json()["outputs"]
        == client.post(f"{MODEL}/infer", json=tensors()).json()["outputs"]
    )


def test_both_doors_give_one_answer(client, instance):
    plain = client.post("/api/v1/infer", json={"instances": [instance()]}).json()
    raw = client.post(f"{MODEL}/infer", json=features(ROW, [1, 5])).json()
    assert plain["predictions"][0]["prediction"] == raw["outputs"][0]["data"][0]


SEATS = "planes__seats"
TENSOR_CASES = {
    "another datatype": ({SEATS: {"datatype": "BYTES"}}, 'datatype "BYTES"; write one of FP32'),
    "no datatype": ({SEATS: {"datatype": None}}, "datatype null"),
    "text": ({SEATS: {"data": ["178"]}}, 'holds "178", which is not FP32'),
    "true": ({SEATS: {"data": [True]}}, "holds true, which is not FP32"),
    "a fraction in INT32": ({SEATS: {"datatype": "INT32", "data": [1.5]}}, "not INT32"),
    "beyond INT32": ({SEATS: {"datatype": "INT32", "data": [2**31]}}, "does not fit INT32"),
    "beyond INT64": ({SEATS: {"datatype": "INT64", "data": [2**63]}}, "does not fit INT64"),
    "beyond FP32": ({SEATS: {"data": [3.5e38]}}, "does not fit FP32"),
    "too little data": ({SEATS: {"data": []}}, "has 0 values; shape [1] needs 1"),
    "too much data": ({SEATS: {"data": [1, 2]}}, "has 2 values; shape [1] needs 1"),
    "no data": ({SEATS: {"data": None}}, "has no list of values"),
    "nested in a flat shape": ({SEATS: {"data": [[1]]}}, "holds [1], which is not FP32"),
    "a ragged nest": (
        {SEATS: {"shape": [1, 1], "data": [[1, 2]]}},
        "a row that does not hold 1 values",
    ),
    "other rows": ({SEATS: {"shape": [2], "data": [1, 2]}}, "shape [2]; write [1] or [1,1]"),
    "a wrong shape": ({SEATS: {"shape": [1, 2]}}, "shape [1,2]; write [1] or [1,1]"),
    "a shape of text": ({SEATS: {"shape": ["1"]}}, 'shape ["1"]'),
    "a negative shape": ({SEATS: {"shape": [-1]}}, "shape [-1]"),
    "a shape of true": ({SEATS: {"shape": [True]}}, "shape [true]"),
    "a misspelt name": ({SEATS: {"name": "planes__seat"}}, "did you mean 'planes__seats'?"),
    "a name twice": ({SEATS: {"name": "distance_miles"}}, "'distance_miles' is there twice"),
    "no name": ({SEATS: {"name": None}}, "inputs[2] has no name"),
}


@pytest.mark.parametrize("case", TENSOR_CASES)
def test_a_wrong_tensor_is_refused_by_name_and_remedy(client, tensors, case):
    changes, said = TENSOR_CASES[case]
    response = client.post(f"{MODEL}/infer", json=tensors(**changes))
    assert response.status_code == 422
    assert list(response.json()) == ["error"]
    assert said in response.json()["error"]


BODY_CASES = {
    "a list": ([], 422, 'no list "inputs"'),
    "no inputs": ({"inputs": []}, 422, "inputs are missing: weather__temperature,"),
    "another output": (features(ROW, [1, 5], outputs=[{"name": "y"}]), 422, 'no output "y"'),
    "an id that is a number": (features(ROW, [1, 5], id=5), 422, "id = 5 is not text"),
    "too few columns": (features(ROW[:4], [1, 4]), 422, "shape [1,4]; write [rows,5]"),
    "one dimension": (features(ROW, [5]), 422, "shape [5]; write [rows,5]"),
    "too many rows": (features(ROW * 51, [51, 5]), 413, "51 rows is more than the 50 rows"),
    "a huge shape": (features(ROW, [10**12, 5]), 413, "1,000,000,000,000 rows"),
}


@pytest.mark.parametrize("case", BODY_CASES)
def test_a_wrong_request_is_refused_with_its_reason(client, case):
    body, status, said = BODY_CASES[case]
    response = client.post(f"{MODEL}/infer", json=body)
    assert response.status_code == status
    assert said in response.json()["error"]


def test_features_beside_columns_are_refused(client, tensors):
    body = tensors()
    body["inputs"] += features(ROW, [1, 5])["inputs"]
    response = client.post(f"{MODEL}/infer", json=body)
    assert "send one or the other" in response.json()["error"]


def test_an_output_that_is_asked_for_by_name_is_given(client):
    body = features(ROW, [1, 5], outputs=[{"name": "prediction"}], parameters={"a": 1})
    assert client.post(f"{MODEL}/infer", json=body).status_code == 200


def test_the_binary_extension_is_refused_by_its_header(client):
    headers = {"Inference-Header-Content-Length": "12"}
    response = client.post(f"{MODEL}/infer", content=b"{}", headers=headers)
    assert (response.status_code, "Inference-Header" in response.json()["error"]) == (400, True)


def test_metadata_names_every_column_in_order(client, columns, store):
    body = client.get(MODEL).json()
    assert [tensor["name"] for tensor in body["inputs"]] == columns
    assert {(t["datatype"], *t["shape"]) for t in body["inputs"]} == {("FP32", -1)}
    assert body["outputs"] == [{"name": "prediction", "datatype": "FP32", "shape": [-1]}]
    assert body["versions"] == [store.digests[0][:12]]


def test_the_served_version_may_be_asked_for_by_name(client, store):
    version = f"{MODEL}/versions/{store.digests[0][:12]}"
    assert client.get(version).json() == client.get(MODEL).json()
    assert client.get(f"{version}/ready").status_code == 200
    assert client.post(f"{version}/infer", json=features(ROW, [1, 5])).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/other", f"{MODEL}/versions/1"])
@pytest.mark.parametrize("ending", ["", "/ready", "/infer"])
def test_what_is_not_served_is_404_in_the_protocols_form(client, path, ending):
    body = features(ROW, [1, 5])
    method, options = ("POST", {"json": body}) if ending == "/infer" else ("GET", {})
    response = client.request(method, path + ending, **options)
    assert response.status_code == 404
    assert "is not served here; this server runs" in response.json()["error"]
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", f"{MODEL}/ready"])
def test_a_serving_server_is_live_and_ready(client, path):
    assert client.get(path).status_code == 200


def test_the_server_says_who_it_is(client):
    assert client.get("/v2").json()["name"] == "headrace"


def test_wrong_tensors_are_errors_without_http_too(endpoint):
    with pytest.raises(FieldsRefused, match="no list"):
        infer(endpoint.current, {"inputs": 5}, max_rows=10)
