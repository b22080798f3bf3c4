"""The OpenAPI document of a running server, built from the schema of the model it serves."""

import math
from typing import Any

from headrace.bundle import OUTPUT
from serving.dataplane import STATUS_NAMES, ServedModel
from serving.schema import Field

_TYPE = {
    "string": {"type": "string"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float64": {"type": "number", "format": "double"},
    "timestamp": {"type": "string", "format": "date-time"},
}
_PROBLEMS = {
    "400": "The body is not JSON, or says a key twice.",
    "408": "The body did not arrive in time.",
    "413": "Too many bytes or rows.",
    "422": "A field is missing, unknown, of a wrong type or out of bounds.",
    "500": "The server's own failure.",
    "503": "The online store does not answer, or does not hold the model's features.",
}


def document(model: ServedModel, endpoint: str, *, max_rows: int) -> dict[str, Any]:
    """The OpenAPI 3.1 document of what is served now."""
    manifest = model.predictor.bundle.manifest
    return {
        "openapi": "3.1.0",
        "info": {
            "title": endpoint,
            "version": model.version,
            "description": f"Model {manifest.model}, revision {model.release.revision}. Send "
            "entity keys and request fields, or raw features.",
        },
        "paths": _paths(endpoint),
        "components": {
            "schemas": {
                "Instance": _instance(model),
                "InferRequest": _infer_request(max_rows),
                "InferResponse": _infer_response(model),
                "Error": _ERROR,
                "V2Tensor": _V2_TENSOR,
                "V2InferRequest": _V2_REQUEST | {"examples": [example_tensors(model)]},
                "V2InferResponse": _V2_RESPONSE,
                "V2Error": _object({"error": {"type": "string"}}),
            }
        },
    }


def example_instance(model: ServedModel) -> dict[str, Any]:
    """A row that passes validation; its entities are made up, so their features are missing."""
    return {field.name: _example(field) for field in model.schema.fields}


def example_tensors(model: ServedModel) -> dict[str, Any]:
    """A request of raw features: the first golden row, one tensor a column."""
    golden = model.predictor.bundle.golden.slice(0, 1).to_pylist()[0]
    return {
        "inputs": [
            {
                "name": name,
                "shape": [1],
                "datatype": "FP32",
                "data": [None if math.isnan(golden[name]) else golden[name]],
            }
            for name in model.predictor.columns
        ]
    }


def _example(field: Field) -> Any:
    if field.kind == "string":
        return f"{field.name}-1"
    if field.kind == "timestamp":
        return "2013-08-01T12:00:00Z"
    low, high = field.at_least, field.at_most
    if low is not None and high is not None:
        value = (low + high) / 2
    else:
        value = low if low is not None else high if high is not None else 1.0
    return value if field.kind == "float64" else int(value)


def _instance(model: ServedModel) -> dict[str, Any]:
    schema = _object({field.name: _property(field) for field in model.schema.fields})
    return schema | {"additionalProperties": False, "examples": [example_instance(model)]}


def _property(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {**_TYPE[field.kind], "description": field.description}
    if field.is_key:
        schema["type"] = [schema["type"], "null"]
        schema["description"] += "; null stands for an unknown one"
    if field.at_least is not None:
        schema["minimum"] = field.at_least
    if field.at_most is not None:
        schema["maximum"] = field.at_most
    return schema


def _infer_request(max_rows: int) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "maxItems": max_rows, "items": _ref("Instance")}
    return _object({"instances": rows}) | {"additionalProperties": False}


def _infer_response(model: ServedModel) -> dict[str, Any]:
    status = {"type": "string", "enum": [name for name in STATUS_NAMES if name]}
    views = {view.view: status for view in model.predictor.plan.views}
    prediction = _object({OUTPUT: {"type": "number"}, "features": _object(views)})
    return _object(
        {
            "model": {"type": "string"},
            "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "revision": {"type": "integer", "minimum": 1},
            "request_id": {"type": "string"},
            "degraded": {
                "type": "boolean",
                "description": "true where the online store could not be asked for some features",
            },
            "predictions": {"type": "array", "items": prediction},
        }
    )


def _paths(endpoint: str) -> dict[str, Any]:
    model, version = f"/v2/models/{endpoint}", "/versions/{version}"
    named = [{"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths: dict[str, Any] = {
        "/api/v1/infer": {"post": _infer("infer", "Predict from entity keys", "Infer", "Error")}
    }
    for suffix, ending, parameters in (("", "", []), (version, "_version", named)):
        paths |= {
            f"{model}{suffix}": {"get": _get(f"metadata{ending}", "Inputs and output", parameters)},
            f"{model}{suffix}/ready": {
                "get": _get(f"ready{ending}", "Does it answer?", parameters)
            },
            f"{model}{suffix}/infer": {
                "post": _infer(
                    f"v2_infer{ending}", "Predict from raw features", "V2Infer", "V2Error"
                )
                | {"parameters": parameters}
            },
        }
    return paths | {
        "/v2": {"get": _get("server_metadata", "Name and version of the server")},
        "/v2/health/live": {"get": _get("live", "The process answers")},
        "/v2/health/ready": {"get": _get("server_ready", "The model is loaded")},
        "/health": {"get": _get("health", "Model, release, online store and log")},
        "/metrics": {"get": _get("metrics", "Prometheus metrics", kind="text/plain")},
    }


def _infer(operation: str, summary: str, schema: str, error: str) -> dict[str, Any]:
    body = {"application/json": {"schema": _ref(f"{schema}Request")}}
    good = {"application/json": {"schema": _ref(f"{schema}Response")}}
    bad = {"application/json": {"schema": _ref(error)}}
    told = _PROBLEMS if error == "Error" else _PROBLEMS | {"404": "Not served here."}
    failures = {status: {"description": text, "content": bad} for status, text in told.items()}
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "Predictions", "content": good}, **failures},
    }


def _get(
    operation: str,
    summary: str,
    parameters: list[dict[str, Any]] | None = None,
    *,
    kind: str = "application/json",
) -> dict[str, Any]:
    good = {"description": summary, "content": {kind: {}}}
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": parameters or [],
        "responses": {"200": good},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_PROBLEM = {
    "type": "object",
    "properties": {
        "row": {"type": ["integer", "null"]},
        "field": {"type": ["string", "null"]},
        "message": {"type": "string"},
    },
}
_ERROR = _object({"error": {"type": "string"}, "request_id": {"type": "string"}}) | {
    "description": "What is wrong, with the field, the row, the value and what to write."
}
_ERROR["properties"]["problems"] = {"type": "array", "items": _PROBLEM}
_V2_TENSOR = _object(
    {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "datatype": {"enum": ["FP32", "FP64", "INT32", "INT64"]},
        "data": {"type": "array", "description": "flat or nested; null is missing"},
    }
)
_V2_REQUEST = _object({"inputs": {"type": "array", "items": _ref("V2Tensor")}})
_V2_REQUEST["properties"]["id"] = {"type": "string"}
_V2_RESPONSE = _object(
    {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _ref("V2Tensor")},
    }
)
