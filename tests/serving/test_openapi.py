"""The OpenAPI document: whole, true, and with examples that are answered."""

import re

import jsonschema
import pytest
from starlette.routing import Route

from serving.app import create_server
from tests.serving.conftest import Client

URL = "/api/v1/infer"
V2 = "/v2/models/flight_delay/infer"


@pytest.fixture
def app(repository, settings, log, tmp_path):
    """A server with every part that has routes."""
    jobs = str(tmp_path / "jobs.db")
    return create_server(repository, settings=settings, log=log, jobs_uri=jobs).app


@pytest.fixture
def openapi(client):
    return client.get("/openapi.json").json()


def refs(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def validator(openapi, name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": openapi["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_every_schema_is_valid_and_every_reference_leads_somewhere(openapi):
    assert openapi["openapi"] == "3.1.0"
    for schema in openapi["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    known = {f"#/components/schemas/{name}" for name in openapi["components"]["schemas"]}
    assert set(refs(openapi)) <= known


def test_every_operation_has_its_own_name_and_declares_its_path_parameters(openapi):
    names = []
    for path, operations in openapi["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
    assert len(names) == len(set(names))


def test_every_route_of_the_server_is_in_the_document_and_the_other_way_round(app, openapi):
    of_people = re.compile("/|/docs|/openapi.json|/try.*")
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route) and not of_people.fullmatch(route.path)
        for method in (route.methods or ()) - {"HEAD"}
    }
    told = {(path, verb) for path, verbs in openapi["paths"].items() for verb in verbs}
    assert told == routes


def test_a_server_without_jobs_does_not_tell_of_them(repository, settings, log):
    client = Client(create_server(repository, settings=settings, log=log).app)
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if "jobs" in path]


@pytest.mark.parametrize("form", ["InferRequest", "Instance", "RawRow", "CompleteInstance"])
def test_what_the_document_describes_is_what_is_answered(client, openapi, form):
    schemas = openapi["components"]["schemas"]
    (row,), (raw,) = schemas["Instance"]["examples"], schemas["RawRow"]["examples"]
    body = {
        "InferRequest": schemas["InferRequest"]["examples"][0],
        "Instance": {"instance": row, "model": "flight_delay"},
        "RawRow": {"features": [raw, list(raw.values())]},
        "CompleteInstance": {"instances": [{"features": raw}, row | {"features": raw}]},
    }[form]
    validator(openapi, "InferRequest").validate(body)
    for path, schema in ((URL, "InferResponse"), (f"{URL}/batch", "BatchResponse")):
        response = client.post(path, json=body)
        assert response.status_code == 200
        validator(openapi, schema).validate(response.json())


@pytest.mark.parametrize(
    ("path", "schema"), [("/health", "Health"), ("/api/v1/model/info", "ModelInfo")]
)
def test_what_the_server_tells_is_as_described(client, openapi, path, schema):
    validator(openapi, schema).validate(client.get(path).json())


def test_errors_are_as_described(client, openapi):
    wrong = client.post(URL, json={"instances": [5]})
    validator(openapi, "Error").validate(wrong.json())
    row = client.post(f"{URL}/batch", json={"instances": [5]}).json()
    validator(openapi, "BatchResponse").validate(row)


def test_the_raw_example_is_a_golden_row_and_gives_the_golden_answer(client, openapi, endpoint):
    (example,) = openapi["components"]["schemas"]["V2InferRequest"]["examples"]
    validator(openapi, "V2InferRequest").validate(example)
    body = client.post(V2, json=example).json()
    validator(openapi, "V2InferResponse").validate(body)
    golden = endpoint.current.predictor.bundle.golden["prediction"][0].as_py()
    assert body["outputs"][0]["data"] == [golden]


@pytest.mark.parametrize(
    "changes",
    [
        {"distance_miles": -1},
        {"distance_miles": "far"},
        {"origin": ...},
        {"more": 1},
        {"features": {"weather__temperature": "warm"}},
        {"features": {"weather__temperatur": 1}},
        {"features": []},
    ],
)
def test_the_document_and_the_server_refuse_the_same_rows(client, openapi, instance, changes):
    row = instance(**changes)
    assert client.post(URL, json={"instances": [row]}).status_code == 422
    assert not validator(openapi, "InferRequest").is_valid({"instances": [row]})
