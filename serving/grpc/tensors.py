"""Tensors on gRPC's wire: a request's to those of ``serving.v2``, an answer's to a response."""

from typing import Any

import numpy as np

from serving.errors import BodyRefused
from serving.grpc.descriptors import message_classes
from serving.grpc.schema import INFERENCE
from serving.query import Answer
from serving.v2.outputs import Output, outputs, parameters
from serving.v2.request import InferRequest, checked_id
from serving.v2.tensors import Data, checked_tensor, refused

MESSAGES = message_classes("inference", INFERENCE)
_RESPONSE = MESSAGES["ModelInferResponse"]
_CONTENTS: dict[str, tuple[str, type | None]] = {
    "BOOL": ("bool_contents", np.uint8),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", None),
}
"""The field of typed contents that holds each datatype; FP16 comes in raw contents alone."""


def read_request(message: Any) -> InferRequest:
    """Return the request that a ``ModelInferRequest`` holds.

    Raises:
        BodyRefused: if raw and typed contents are mixed, or not one for each input.
        FieldsRefused: naming what is wrong with which input.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BodyRefused(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; "
            "send one for each, or none"
        )
    request = InferRequest(checked_id(message.id), {}, [], _parameters(message.parameters))
    for number, tensor in enumerate(message.inputs):
        name = tensor.name
        if name in request.tensors:
            raise refused(f"input {name!r} is there twice; send it once", name)
        if "shared_memory_region" in tensor.parameters:
            raise refused(f"input {name!r}: shared memory is not offered; send its data", name)
        if raw and tensor.HasField("contents"):
            raise BodyRefused(f"input {name!r} has contents and raw contents; send one of them")
        data = raw[number] if raw else _typed(tensor)
        request.tensors[name] = checked_tensor(name, tensor.datatype, list(tensor.shape), data)
    request.outputs = [(asked.name, _parameters(asked.parameters)) for asked in message.outputs]
    names = [name for name, _ in request.outputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refused(f"output {twice!r} is asked for twice; ask once", "outputs")
    return request


def write_response(answer: Answer) -> Any:
    """Return the ``ModelInferResponse``: raw contents where the request had them, else typed."""
    query = answer.query
    response = _RESPONSE(
        model_name=query.model.release.endpoint,
        model_version=query.model.version,
        id=query.request_id,
    )
    for name, value in parameters(answer).items():
        kind = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(response.parameters[name], kind, value)
    for output in outputs(answer):
        tensor = response.outputs.add(name=output.name, datatype=output.datatype)
        tensor.shape.append(len(output.values))
        if output.binary:
            response.raw_output_contents.append(output.wire())
        else:
            _write_typed(tensor.contents, output)
    return response


def _typed(tensor: Any) -> Data | None:
    if tensor.datatype not in _CONTENTS:
        if tensor.datatype == "FP16":
            raise refused(
                f"input {tensor.name!r} is FP16, which has no typed contents; send it in "
                "raw_input_contents",
                tensor.name,
            )
        return None  # checked_tensor says which datatypes there are
    field, kind = _CONTENTS[tensor.datatype]
    values = getattr(tensor.contents, field)
    return tuple(values) if kind is None else np.array(values, kind)


def _write_typed(contents: Any, output: Output) -> None:
    if output.datatype == "FP32":
        contents.fp32_contents.extend(np.nan if v is None else v for v in output.values)
    else:
        contents.bytes_contents.extend(map(str.encode, output.values))


def _parameters(given: Any) -> dict[str, Any]:
    if not given:
        return {}
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in given.items()}
    return {name: getattr(given[name], kind) for name, kind in chosen.items() if kind}
