"""The Open Inference Protocol: metadata, inference, explanations and the model repository."""

from typing import Any

from serving.openapi.describe import INFER, array, content, obj, operation, parameter, ref
from serving.openapi.rows import example_tensors
from serving.served import ServedModel
from serving.v2.datatypes import DATATYPES

_STRING, _OBJECT = {"type": "string"}, {"type": "object"}
_INFER = (*INFER, 409)


def schemas(model: ServedModel) -> dict[str, Any]:
    """The protocol's schemas."""
    tensor = {
        "name": _STRING,
        "shape": array({"type": "integer", "minimum": 1}),
        "datatype": {"enum": list(DATATYPES)},
        "parameters": _OBJECT,
        "data": {"type": "array", "description": "flat or nested; null is missing"},
    }
    output = obj({"name": _STRING, "parameters": _OBJECT}, optional=("parameters",))
    said = {"name": _STRING, "datatype": _STRING, "shape": array({"type": "integer"})}
    return {
        "V2Tensor": obj(tensor, optional=("parameters",)),
        "V2InferRequest": obj(
            {
                "id": _STRING,
                "parameters": _OBJECT,
                "inputs": array(ref("V2Tensor")),
                "outputs": array(output),
            },
            optional=("id", "parameters", "outputs"),
            examples=[example_tensors(model)],
        ),
        "V2InferResponse": obj(
            {
                "model_name": _STRING,
                "model_version": _STRING,
                "id": _STRING,
                "parameters": _OBJECT,
                "outputs": array(ref("V2Tensor")),
            },
            optional=("parameters",),
        ),
        "V2ModelMetadata": obj(
            {
                "name": _STRING,
                "versions": array(_STRING),
                "platform": _STRING,
                "inputs": array(obj(said)),
                "outputs": array(obj(said)),
            }
        ),
        "V2Error": obj({"error": _STRING}),
        "V2Ready": obj({"name": _STRING, "ready": {"type": "boolean"}}),
        "V2ModelState": obj(
            {"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING}
        ),
    }


def paths(model: ServedModel) -> dict[str, Any]:
    """The protocol's paths, with and without a version."""
    names = {"type": "string", "enum": [model.release.endpoint]}
    versions = {"type": "string", "enum": [model.version]}
    named = [parameter("name", "path", names, "The endpoint")]
    found = {"/v2": {"get": _get("server_metadata", "Name and version", ref("V2Server"))}}
    found |= _model_paths("/v2/models/{name}", "", named)
    versioned = [*named, parameter("version", "path", versions, "Short digest of the bundle")]
    found |= _model_paths("/v2/models/{name}/versions/{version}", "_version", versioned)
    return found | _repository_paths(named)


def server_schema() -> Any:
    """The server's metadata."""
    return obj({"name": _STRING, "version": _STRING, "extensions": array(_STRING)})


def _model_paths(base: str, ending: str, parameters: list[Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "tag": "v2",
        "failures": _INFER,
        "error": "V2Error",
        "body": content(ref("V2InferRequest")),
        "parameters": parameters,
    }
    good = content(ref("V2InferResponse"))
    return {
        base: {
            "get": _get(
                f"metadata{ending}", "Inputs and output", ref("V2ModelMetadata"), parameters
            )
        },
        f"{base}/ready": {
            "get": _get(f"ready{ending}", "Does it answer?", ref("V2Ready"), parameters)
        },
        f"{base}/infer": {
            "post": operation(f"v2_infer{ending}", "Predict from tensors", good=good, **asked)
        },
        f"{base}/explain": {
            "post": operation(f"v2_explain{ending}", "Explain predictions", good=good, **asked)
        },
    }


def _repository_paths(named: list[Any]) -> dict[str, Any]:
    only = obj({"ready": {"type": "boolean"}}, optional=("ready",))
    options = obj({"parameters": _OBJECT}, optional=("parameters",))
    failures = (400, 408, 413, 415, 422, 500, 503)

    def change(verb: str) -> dict[str, Any]:
        return operation(
            f"{verb}_model",
            f"{verb.capitalize()} the model of an endpoint",
            tag="v2 repository",
            good=content(_OBJECT),
            failures=(*failures, 403, 404, 409),
            body=content(options),
            body_required=False,
            parameters=named,
        )

    return {
        "/v2/repository/index": {
            "post": operation(
                "repository_index",
                "Models that are served, or could be",
                tag="v2 repository",
                good=content(array(ref("V2ModelState"))),
                failures=failures,
                body=content(only),
                body_required=False,
            )
        },
        "/v2/repository/models/{name}/load": {"post": change("load")},
        "/v2/repository/models/{name}/unload": {"post": change("unload")},
    }


def _get(
    name: str, summary: str, schema: Any, parameters: list[Any] | None = None
) -> dict[str, Any]:
    failures = (404, 503) if parameters else ()
    return operation(
        name,
        summary,
        tag="v2",
        good=content(schema),
        failures=failures,
        parameters=parameters or (),
    )
