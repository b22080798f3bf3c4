"""ONNX files made elsewhere: nothing is fitted, everything is checked."""

import numpy as np
from google.protobuf.message import DecodeError

from headrace import storage
from headrace.errors import SpecRefused, StorageFailed
from headrace.spec import ModelSpec, OnnxModel
from tasks.fitters.checked import checked
from tasks.fitters.onnx_graph import one_prediction


def fit(spec: ModelSpec, trainer: OnnxModel, matrix: np.ndarray) -> bytes:
    """Return the file's model with the one output that the bundle needs.

    Args:
        spec: the model, for its name.
        trainer: which file, output and column.
        matrix: training inputs, float32, shape (rows, columns): the file must take as many.

    Raises:
        SpecRefused: if the file is not there or is no such model.
    """
    try:
        data = storage.read_bytes(trainer.file)
    except (FileNotFoundError, StorageFailed) as error:
        said = f"trainer.file {trainer.file!r} cannot be read: {error}"
        raise SpecRefused(spec.name, said) from error
    try:
        model = one_prediction(spec.name, data, output=trainer.output, column=trainer.column)
    except (DecodeError, ValueError) as error:
        said = f"trainer.file {trainer.file!r} is no model to use: {error}"
        raise SpecRefused(spec.name, said) from error
    return checked(spec.name, "onnx", model, matrix)
