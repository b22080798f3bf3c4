"""The usual gRPC request in a third of the time: raw FP32 rows of all features, and nothing else.

``read_usual`` gives the same query as the full decoder (``tensors.py``), or None where the request
has anything that it does not know; then the full decoder reads it, or names its faults.
"""

from typing import Any

import numpy as np

from headrace.bundle import OUTPUT
from serving.served import ServedModel
from serving.v2.inputs import FEATURES
from serving.v2.request import Reply

RAW = Reply(((OUTPUT, True),))
"""Raw contents come back raw."""
_FP32 = np.dtype("<f4")
_LONGEST_ID = 1024


def read_usual(message: Any, model: ServedModel, max_rows: int) -> np.ndarray | None:
    """Return the features of a usual request, float32, shape (rows, columns); None for others."""
    inputs, raw, columns = message.inputs, message.raw_input_contents, model.predictor.columns
    if len(inputs) != 1 or len(raw) != 1 or message.parameters or message.outputs:
        return None
    tensor, data = inputs[0], raw[0]
    if tensor.name != FEATURES or tensor.datatype != "FP32" or FEATURES in columns:
        return None
    shape = list(tensor.shape)
    if len(shape) != 2 or shape[1] != len(columns) or len(data) != 4 * shape[0] * shape[1]:
        return None
    if not 1 <= shape[0] <= max_rows:
        return None
    if tensor.parameters or tensor.HasField("contents") or len(message.id) > _LONGEST_ID:
        return None
    features = np.frombuffer(data, _FP32).reshape(shape)
    return None if np.isinf(features).any() else features
