"""The Open Inference Protocol, version 2, over JSON: raw features in, one output tensor out.

A request holds either one tensor for each of the model's columns, of shape [n] or [n, 1], or one
tensor named ``features`` of shape [n, columns] in declared order. null is a missing value. The
binary tensor extension is not offered.

Source: https://github.com/kserve/open-inference-protocol, inference_rest.md.
"""

import difflib
import math
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np

from headrace.bundle import OUTPUT
from serving.dataplane import Answer, ServedModel, infer_features
from serving.errors import BodyTooLarge, FieldsRefused, ModelNotServed, Problem
from serving.schema import show

EDGE = "v2"
FEATURES = "features"
PLATFORM = "headrace_xgboost"
SERVER = {"name": "headrace", "version": version("headrace"), "extensions": []}
_TYPES: dict[str, tuple[type, ...]] = {
    "FP32": (int, float, type(None)),
    "FP64": (int, float, type(None)),
    "INT32": (int, type(None)),
    "INT64": (int, type(None)),
}
_FLOAT32 = float(np.finfo(np.float32).max)
_RANGES = {
    "FP32": (-_FLOAT32, _FLOAT32),
    "FP64": (-_FLOAT32, _FLOAT32),  # the model sees 32-bit floats
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}


def check_served(model: ServedModel, endpoint: str, name: str, asked: str | None) -> None:
    """Raise ``ModelNotServed`` unless ``name`` and version ``asked`` are what answers here."""
    if name != endpoint:
        raise ModelNotServed("model", name, endpoint)
    if asked is not None and asked not in (model.version, model.predictor.digest):
        raise ModelNotServed("version", asked, model.version)


def metadata(model: ServedModel, endpoint: str) -> dict[str, Any]:
    """The model's metadata: its inputs in declared order, and its output."""
    return {
        "name": endpoint,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": [-1]} for name in model.predictor.columns
        ],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1]}],
    }


def infer(model: ServedModel, document: Any, *, max_rows: int) -> Answer:
    """Answer a decoded request body.

    Raises:
        FieldsRefused: naming the tensor, and what its shape, type or data should be.
        BodyTooLarge: for more than ``max_rows`` rows.
    """
    tensors = _tensors(document)
    columns = model.predictor.columns
    if FEATURES in tensors and FEATURES not in columns:
        return infer_features(model, _from_one(tensors, columns, max_rows))
    return infer_features(model, _from_columns(tensors, columns, max_rows))


def render(answer: Answer, request_id: str, *, endpoint: str) -> dict[str, Any]:
    """The response body."""
    return {
        "model_name": endpoint,
        "model_version": answer.model.version,
        "id": request_id,
        "outputs": [
            {
                "name": OUTPUT,
                "datatype": "FP32",
                "shape": [len(answer.predictions)],
                "data": answer.predictions.tolist(),
            }
        ],
    }


def request_id_of(document: Any, default: str) -> str:
    """The ``id`` that the caller gave in the body, else ``default``."""
    given = document.get("id", default) if isinstance(document, dict) else default
    if not isinstance(given, str):
        raise _refused(f"id = {show(given)} is not text; write a string, or leave it out", "id")
    return given


def _tensors(document: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise _refused('the body has no list "inputs"; write {"inputs": [{"name": ...}]}', "inputs")
    for output in document.get("outputs") or ():
        name = output.get("name") if isinstance(output, dict) else output
        if name != OUTPUT:
            raise _refused(
                f"there is no output {show(name)}; the model has one: {OUTPUT!r}", "outputs"
            )
    tensors: dict[str, dict[str, Any]] = {}
    for number, tensor in enumerate(document["inputs"]):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise _refused(f"inputs[{number}] has no name; name the tensor", "inputs")
        if tensor["name"] in tensors:
            raise _refused(f"input {tensor['name']!r} is there twice; send it once", tensor["name"])
        tensors[tensor["name"]] = tensor
    return tensors


def _from_one(
    tensors: dict[str, dict[str, Any]], columns: Sequence[str], max_rows: int
) -> np.ndarray:
    if len(tensors) > 1:
        names = ", ".join(sorted(set(tensors) - {FEATURES}))
        raise _refused(f"besides {FEATURES!r} there are inputs {names}; send one or the other")
    shape = _shape(tensors[FEATURES], FEATURES)
    if len(shape) != 2 or shape[1] != len(columns):
        raise _refused(f"input {FEATURES!r} has shape {show(shape)}; write [rows,{len(columns)}]")
    _check_rows(shape[0], max_rows)
    return _values(tensors[FEATURES], FEATURES, shape).reshape(shape)


def _from_columns(
    tensors: dict[str, dict[str, Any]], columns: Sequence[str], max_rows: int
) -> np.ndarray:
    for name in tensors:
        if name not in columns:
            close = difflib.get_close_matches(name, [*columns, FEATURES], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the model's metadata"
            raise _refused(f"the model has no input {name!r}; {hint}", name)
    if missing := [name for name in columns if name not in tensors]:
        raise _refused(
            f"inputs are missing: {', '.join(missing)}; send every column, with null for what is "
            f"not known, or one tensor {FEATURES!r}",
            missing[0],
        )
    shapes = {name: _shape(tensors[name], name) for name in columns}
    rows = shapes[columns[0]][0]
    _check_rows(rows, max_rows)
    for name, shape in shapes.items():
        if shape not in ([rows], [rows, 1]):
            raise _refused(
                f"input {name!r} has shape {show(shape)}; write [{rows}] or [{rows},1]", name
            )
    return np.column_stack([_values(tensors[name], name, shapes[name]) for name in columns])


def _shape(tensor: dict[str, Any], name: str) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or any(type(n) is not int or n < 1 for n in shape):
        raise _refused(
            f"input {name!r} has shape {show(shape)}; write a list of numbers from 1", name
        )
    return shape


def _values(tensor: dict[str, Any], name: str, shape: list[int]) -> np.ndarray:
    """The tensor's data as float32, flat; null is NaN."""
    kind = tensor.get("datatype")
    if kind not in _TYPES:
        wanted = ", ".join(_TYPES)
        raise _refused(f"input {name!r} has datatype {show(kind)}; write one of {wanted}", name)
    data = _flat(tensor.get("data"), name, shape)
    if not set(map(type, data)).issubset(_TYPES[kind]):
        wrong = next(value for value in data if type(value) not in _TYPES[kind])
        raise _refused(f"input {name!r} holds {show(wrong)}, which is not {kind} or null", name)
    low, high = _RANGES[kind]
    for value in data:
        if value is not None and not low <= value <= high:
            raise _refused(f"input {name!r} holds {show(value)}, which does not fit {kind}", name)
    return np.array(data, np.float64).astype(np.float32)


def _flat(data: Any, name: str, shape: list[int]) -> list[Any]:
    """Data may be flat or nested by rows, as the protocol allows."""
    wanted = math.prod(shape)
    if isinstance(data, list) and len(shape) == 2 and data and isinstance(data[0], list):
        if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
            raise _refused(f"input {name!r} has a row that does not hold {shape[1]} values", name)
        data = list(chain.from_iterable(data))
    if not isinstance(data, list) or len(data) != wanted:
        found = len(data) if isinstance(data, list) else "no list of"
        raise _refused(
            f"input {name!r} has {found} values; shape {show(shape)} needs {wanted}", name
        )
    return data


def _check_rows(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise BodyTooLarge(f"{rows:,} rows", max_rows, "rows")


def _refused(message: str, field: str | None = FEATURES) -> FieldsRefused:
    return FieldsRefused([Problem(message, field=field)])
