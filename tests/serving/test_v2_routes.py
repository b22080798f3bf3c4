import pytest

from serving.app import create_server

MODEL = "/v2/models/flight_delay"


@pytest.fixture
def columns(plan):
    return list(plan.columns)


def test_metadata_tells_every_form_of_a_request(client, columns, store):
    body = client.get(MODEL).json()
    told = {tensor["name"]: tensor for tensor in body["inputs"]}
    assert list(told)[: len(columns)] == columns
    assert {(told[name]["datatype"], *told[name]["shape"]) for name in columns} == {("FP32", -1)}
    assert told["features"]["shape"] == [-1, len(columns)]
    keys = {name: t["datatype"] for name, t in told.items() if t["parameters"]["form"] == "keys"}
    assert keys == dict.fromkeys(("origin", "tailnum", "scheduled_departure"), "BYTES")
    assert body["outputs"][0] == {"name": "prediction", "datatype": "FP32", "shape": [-1]}
    assert [tensor["name"] for tensor in body["outputs"][1:]] == [
        "status__weather",
        "status__planes",
    ]
    assert (body["versions"], body["platform"]) == ([store.digests[0][:12]], "headrace_xgboost")


def test_the_served_version_may_be_asked_for_by_name(client, store):
    version = f"{MODEL}/versions/{store.digests[0][:12]}"
    assert client.get(version).json() == client.get(MODEL).json()
    assert client.get(f"{version}/ready").json() == {"name": "flight_delay", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/other", f"{MODEL}/versions/1"])
@pytest.mark.parametrize("ending", ["", "/ready", "/infer"])
def test_what_is_not_served_is_404_in_the_protocols_form(client, path, ending):
    method, options = ("POST", {"content": b"{}"}) if ending == "/infer" else ("GET", {})
    response = client.request(method, path + ending, **options)
    assert response.status_code == 404
    assert "is not served here; this server runs" in response.json()["error"]
    assert list(response.json()) == ["error"]


def test_the_server_says_who_it_is_and_what_it_can(client):
    body = client.get("/v2").json()
    assert body["name"] == "headrace"
    assert {"binary_tensor_data", "model_repository"} <= set(body["extensions"])


def test_a_model_leaves_the_index_of_the_ready_and_comes_back(client, store):
    def index(**body):
        return client.post("/v2/repository/index", json=body).json()

    ready = [
        {
            "name": "flight_delay",
            "version": store.digests[0][:12],
            "state": "READY",
            "reason": "",
        }
    ]
    assert index() == index(ready=True) == ready
    assert client.post("/v2/repository/models/flight_delay/unload").status_code == 200
    assert client.get(f"{MODEL}/ready").status_code == 404
    assert (index(ready=True), index()[0]["state"]) == ([], "UNAVAILABLE")
    body = {"parameters": {"unload_dependents": False}}
    assert client.post("/v2/repository/models/flight_delay/load", json=body).status_code == 200
    assert index() == ready


LOADS = {
    "never released": ("never_released", {}, 404, "never_released"),
    "no name": ("..", {}, 404, ""),
    "a bad name": ("A%20B", {}, 422, "endpoint name"),
    "its own model": ("flight_delay", {"parameters": {"config": "{}"}}, 422, "move the endpoint's"),
    "a file": ("flight_delay", {"parameters": {"file:a": "x"}}, 422, "a model is not sent"),
    "a list": ("flight_delay", [], 422, "the body is []; write an object"),
    "parameters of text": ("flight_delay", {"parameters": "x"}, 422, "parameters ="),
}


@pytest.mark.parametrize("case", LOADS)
def test_a_load_that_cannot_be_is_refused(client, case):
    name, body, status, said = LOADS[case]
    response = client.post(f"/v2/repository/models/{name}/load", json=body)
    assert (response.status_code, said in response.json()["error"]) == (status, True)


def test_callers_may_be_kept_from_loading_and_unloading(repository, settings, log, client):
    closed = settings.model_copy(update={"model_control": False})
    client = type(client)(create_server(repository, settings=closed, log=log).app)
    for verb in ("load", "unload"):
        response = client.post(f"/v2/repository/models/flight_delay/{verb}")
        assert response.status_code == 403
        assert "HEADRACE_SERVER_MODEL_CONTROL" in response.json()["error"]
    assert client.post("/v2/repository/index").status_code == 200
