"""The plain API: infer, batch, stream, explain and the model's information."""

from typing import Any

from headrace.bundle import OUTPUT
from serving.openapi.describe import INFER, array, content, obj, operation, parameter, ref
from serving.served import STATUS_NAMES, ServedModel

_ID = parameter(
    "X-Request-Id", "header", {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "Comes back as a header and in the body, and stands in logs",
)  # fmt: skip
_TIMEOUT = parameter(
    "X-Request-Timeout", "header",
    {"type": "string", "pattern": r"^[1-9][0-9]{0,2}(\.[0-9]{1,3})?$"},
    "Seconds after which nobody waits for the answer",
)  # fmt: skip
_PROBLEM = obj(
    {
        "row": {"type": ["integer", "null"]},
        "field": {"type": ["string", "null"]},
        "value": {"type": ["string", "null"], "description": "as it was sent, in JSON"},
        "message": {"type": "string"},
        "remedy": {"type": ["string", "null"], "description": "what to write instead"},
    }
)


def schemas(model: ServedModel) -> dict[str, Any]:
    """The schemas of answers and errors."""
    status = {"type": "string", "enum": [name for name in STATUS_NAMES if name]}
    views = {view.view: status for view in model.predictor.plan.views}
    reads = obj(views, optional=tuple(views), additionalProperties=False)
    reads["description"] = "What the online read of each feature view found; empty for raw rows"
    answer = {OUTPUT: {"type": ["number", "null"]}, "features": reads}
    head = {
        "model": {"type": "string"},
        "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "revision": {"type": "integer", "minimum": 1},
        "request_id": {"type": "string"},
        "degraded": {
            "type": "boolean",
            "description": "true where the online store could not be asked for some features",
        },
    }
    told = "true where every row was computed for an earlier request, and kept"
    kept = {"cached": {"type": "boolean", "description": told}}
    item = {"anyOf": [ref("Prediction"), ref("RowError")]}
    explanation = {"type": "object", "properties": {"contributions": {"type": "object"}}}
    return {
        "Prediction": obj(answer),
        "RowError": obj({"error": {"type": "string"}, "problems": array(ref("Problem"))}),
        "Problem": _PROBLEM,
        "Error": obj(
            {
                "error": {"type": "string"},
                "request_id": {"type": "string"},
                "problems": array(ref("Problem")),
            },
            optional=("problems", "request_id"),
            description="What is wrong, with the field, the row, the value and what to write.",
        ),
        "InferResponse": {
            "anyOf": [
                obj(head | kept | {"predictions": array(ref("Prediction"))}),
                obj(head | kept | answer),
            ]
        },
        "BatchResponse": obj(
            head | {"failed": {"type": "integer", "minimum": 0}, "predictions": array(item)}
        ),
        "ExplainResponse": obj(
            head
            | {
                "method": {"type": "string"},
                "scale": {"type": "string"},
                "explanations": array(explanation),
            }
        ),
        "ModelInfo": obj(
            {
                "model": {"type": "string"},
                "digest": {"type": "string"},
                "revision": {"type": "integer"},
                "inputs": {"type": "object"},
                "output": {"type": "object"},
                "metrics": {"type": "object"},
                "lineage": {"type": "object"},
                "plan": {"type": "object"},
                "card": {"type": "string"},
            }
        ),
    }


def paths(model: ServedModel) -> dict[str, Any]:
    """The paths of the plain API."""
    asked: dict[str, Any] = {
        "tag": "plain",
        "failures": INFER,
        "body": content(ref("InferRequest")),
        "parameters": [_ID, _TIMEOUT],
    }
    streamed = asked | {"parameters": [_ID, *_STREAM]}
    words = {name: {"type": "string"} for name in ("event", "id", "data")}
    lines = {"schema": {"type": "string", "description": "JSON objects, a line each"}}
    events = {"text/event-stream": {"schema": obj(words)}, "application/x-ndjson": lines}
    name = parameter(
        "model", "query", {"type": "string", "enum": [model.release.endpoint]}, "The endpoint"
    )
    return {
        "/api/v1/infer": {
            "post": operation(
                "infer",
                "Predict from entity keys or raw features",
                good=content(ref("InferResponse")),
                **asked,
            )
        },
        "/api/v1/infer/batch": {
            "post": operation(
                "infer_batch",
                "The same, where a bad row costs only itself",
                good=content(ref("BatchResponse")),
                **asked,
            )
        },
        "/api/v1/infer/stream": {
            "post": operation(
                "infer_stream",
                "The same, as events while rows are computed",
                good=events,
                **streamed,
            )
        },
        "/api/v1/explain": {
            "post": operation(
                "explain",
                "Why a prediction is what it is",
                good=content(ref("ExplainResponse")),
                **asked,
            )
        },
        "/api/v1/model/info": {
            "get": operation(
                "model_info",
                "What the model takes, gives and comes from",
                tag="plain",
                good=content(ref("ModelInfo")),
                failures=(404, 503),
                parameters=[name],
            )
        },
    }


_STREAM = [
    parameter(
        "chunk_rows", "query", {"type": "integer", "minimum": 1, "maximum": 100_000},
        "Rows an event",
    ),
    parameter(
        "Last-Event-ID", "header", {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        "Id of the last event that arrived: go on behind it",
    ),
]  # fmt: skip
