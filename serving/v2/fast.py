"""The usual request decoded in a few microseconds: JSON of FP32 or FP64, and nothing else in it.

``read_usual`` gives the same query as the full decoder (``rest.py``), or None where the request has
anything that it does not know; then the full decoder reads it, or names its faults. msgspec checks
types and bounds in C while it decodes. A repeated key would be taken for its last value, so quotes
are counted: without escapes, a body of known keys holds two for each key and each string.
"""

from itertools import chain
from typing import Annotated, Literal

import msgspec
import numpy as np

from serving.fields import FLOAT32
from serving.served import ServedModel
from serving.v2.inputs import FEATURES

_Number = Annotated[float, msgspec.Meta(ge=-FLOAT32, le=FLOAT32)]
_Id = Annotated[str, msgspec.Meta(max_length=1024)]
Features = list[float | None] | np.ndarray


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: Literal["FP32", "FP64"]
    data: list[_Number | None]


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: list[_Tensor]
    id: _Id | None = None


_decode = msgspec.json.Decoder(_Request).decode


def read_usual(
    body: bytes, model: ServedModel, max_rows: int
) -> tuple[str | None, int, Features] | None:
    """Return id, rows and features of a usual request; None for every other one.

    The features are as ``Query.features`` takes them: flat and row-major, or an array.
    """
    try:
        request = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    inputs = request.inputs
    strings = 1 + 6 * len(inputs) + (2 if request.id else 0)
    if b"\\" in body or body.count(b'"') != 2 * strings:
        return None
    columns = model.predictor.columns
    if len(inputs) == 1 and inputs[0].name == FEATURES and FEATURES not in columns:
        features = _from_one(inputs[0], len(columns))
    else:
        features = _from_columns(inputs, columns)
    if features is None:
        return None
    rows = inputs[0].shape[0]
    return (request.id or None, rows, features) if rows <= max_rows else None


def _from_one(tensor: _Tensor, columns: int) -> Features | None:
    data, shape = tensor.data, tensor.shape
    if len(shape) != 2 or shape[1] != columns or not data or len(data) != shape[0] * columns:
        return None
    return data


def _from_columns(inputs: list[_Tensor], columns: tuple[str, ...]) -> Features | None:
    if [tensor.name for tensor in inputs] != list(columns):
        return None
    rows = len(inputs[0].data)
    shapes = [rows], [rows, 1]
    for tensor in inputs:
        if tensor.shape not in shapes or len(tensor.data) != rows or not rows:
            return None
    if rows == 1:
        return [tensor.data[0] for tensor in inputs]
    flat = np.array(list(chain.from_iterable(tensor.data for tensor in inputs)), np.float64)
    return np.ascontiguousarray(flat.astype(np.float32).reshape(len(columns), rows).T)
