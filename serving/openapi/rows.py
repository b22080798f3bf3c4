"""Schemas of what a model takes, from its fields and columns, and examples that it answers."""

import math
from typing import Any

from serving.fields import FLOAT32, Field
from serving.openapi.describe import array, nullable, obj, ref
from serving.served import ServedModel

_TYPE = {
    "string": {"type": "string"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float64": {"type": "number", "format": "double"},
    "timestamp": {"type": "string", "format": "date-time"},
}
_NUMBER = {"type": ["number", "null"], "minimum": -FLOAT32, "maximum": FLOAT32}


def example_instance(model: ServedModel) -> dict[str, Any]:
    """A row that passes validation; its entities are made up, so their features are missing."""
    return {field.name: _example(field) for field in model.schema.fields}


def example_raw(model: ServedModel) -> dict[str, float | None]:
    """The raw features of the first golden row; null is missing."""
    golden = model.predictor.bundle.golden.slice(0, 1).to_pylist()[0]
    return {
        name: None if math.isnan(golden[name]) else golden[name] for name in model.predictor.columns
    }


def example_tensors(model: ServedModel) -> dict[str, Any]:
    """The same in the V2 protocol, one tensor a column."""
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "FP32", "data": [value]}
            for name, value in example_raw(model).items()
        ]
    }


def schemas(model: ServedModel, *, max_rows: int) -> dict[str, Any]:
    """The schemas of rows and of requests."""
    columns = model.predictor.columns
    fields = {field.name: _property(field) for field in model.schema.fields}
    example = example_instance(model)
    some, every = dict.fromkeys(columns, _NUMBER), dict.fromkeys(columns, _NUMBER)
    beside = obj(some, optional=columns, additionalProperties=False)
    beside["description"] = "Raw features that win over what is read; null is missing"
    names = {"model": {"type": "string", "enum": [model.release.endpoint]}}
    rows = {"minItems": 1, "maxItems": max_rows}
    features = {} if "features" in fields else {"features": beside}
    complete = fields | {"features": ref("RawRow")}
    listed = array(_NUMBER, minItems=len(columns), maxItems=len(columns))

    def request(**form: Any) -> Any:
        return obj(form | names, optional=("model",), additionalProperties=False)

    return {
        "Instance": obj(fields | features, optional=tuple(features), additionalProperties=False)
        | {"examples": [example]},
        "CompleteInstance": obj(complete, optional=tuple(fields), additionalProperties=False)
        | {"description": "A row that brings every column; nothing is read for it."},
        "RawRow": obj(every, additionalProperties=False) | {"examples": [example_raw(model)]},
        "InferRequest": {
            "anyOf": [
                request(instances=array(ref("Instance"), **rows)),
                request(instance={"anyOf": [ref("Instance"), ref("CompleteInstance")]}),
                request(instances=array(ref("CompleteInstance"), **rows)),
                request(features=array({"anyOf": [ref("RawRow"), listed]}, **rows)),
            ],
            "examples": [{"instances": [example]}],
        },
    }


def _example(field: Field) -> Any:
    if field.one_of is not None:
        return field.one_of[0]
    if field.kind == "string":
        return f"{field.name}-1"
    if field.kind == "timestamp":
        return "2013-08-01T12:00:00Z"
    low, high = field.at_least, field.at_most
    if low is not None and high is not None:
        value = (low + high) / 2
    else:
        value = low if low is not None else high if high is not None else 1.0
    return value if field.kind == "float64" else math.ceil(value)


def _property(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {**_TYPE[field.kind], "description": field.description}
    if field.is_key:
        schema = nullable(schema)
        schema["description"] += "; null stands for an unknown one"
    if field.one_of is not None:
        schema["enum"] = list(field.one_of)
    elif (bounds := field.range) is not None:
        schema |= {"minimum": bounds[0], "maximum": bounds[1]}
    return schema
