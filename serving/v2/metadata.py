"""What the server and its models say of themselves, for REST and gRPC alike."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from headrace.bundle import OUTPUT
from serving.dataplane import ServedModel
from serving.fields import Field
from serving.v2.inputs import FEATURES
from serving.v2.request import output_names

NAME = "headrace"
VERSION = version(NAME)
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters", "schedule_policy")
_DATATYPES = {
    "string": "BYTES",
    "int32": "INT32",
    "int64": "INT64",
    "float64": "FP64",
    "timestamp": "BYTES",
}


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    form: str
    """Which form of a request it belongs to: "columns", "features" or "keys"; "" for an output."""


def server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def inputs(model: ServedModel) -> list[TensorMetadata]:
    """The inputs of all forms: the model's columns in order, all in one, and request fields.

    A field that is a column too, like a distance, is told as a column.
    """
    columns = model.predictor.columns
    found = [TensorMetadata(name, "FP32", (-1,), "columns") for name in columns]
    if FEATURES not in columns:
        found.append(TensorMetadata(FEATURES, "FP32", (-1, len(columns)), "features"))
    fields = [field for field in model.schema.fields if field.name not in columns]
    return found + [TensorMetadata(f.name, _datatype(f), (-1,), "keys") for f in fields]


def outputs(model: ServedModel) -> list[TensorMetadata]:
    """The prediction, and what became of each view's read where keys are sent."""
    return [
        TensorMetadata(name, "FP32" if name == OUTPUT else "BYTES", (-1,), "")
        for name in output_names(model, keyed=True)
    ]


def platform(model: ServedModel) -> str:
    """What runs it, as in ``headrace_xgboost``."""
    return f"{NAME}_{model.predictor.bundle.manifest.runtime}"


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """The model's metadata, as REST says it."""
    return {
        "name": model.release.endpoint,
        "versions": [model.version],
        "platform": platform(model),
        "inputs": [_tensor(tensor) for tensor in inputs(model)],
        "outputs": [_tensor(tensor) for tensor in outputs(model)],
    }


def _tensor(tensor: TensorMetadata) -> dict[str, Any]:
    said = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    return said | ({"parameters": {"form": tensor.form}} if tensor.form else {})


def _datatype(field: Field) -> str:
    return _DATATYPES[field.kind]
