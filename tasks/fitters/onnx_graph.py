"""One ONNX graph with one answer a row: what every model that runs in ONNX Runtime becomes here.

Converters leave several outputs (labels beside probabilities), columns for each class and names
of their own. ``one_prediction`` cuts the graph down to the one float32 a row that is wanted.
"""

from typing import TYPE_CHECKING

import numpy as np

from headrace.bundle import OUTPUT
from headrace.errors import SpecRefused
from serving.errors import RuntimeFailed

if TYPE_CHECKING:
    import onnx

SAMPLE_ROWS = 4096
"""How many training rows a converted model is compared on."""
_OFF, _OFF_SHARE = 1e-3, 1e-3
"""How far an answer may be off (of 1, or of its own size), and in how many of a thousand rows: a
value on the edge of a tree's threshold may fall to the other side in float32."""


def one_prediction(
    name: str, model: bytes, *, output: str | None = None, column: int | None = None
) -> bytes:
    """Return the model with one output, ``prediction``: float32, shape (rows,).

    Args:
        name: the graph's name from now on.
        model: a serialised ``onnx.ModelProto``.
        output: which output is kept; None: the only one.
        column: which column of that output; None: its only one.

    Raises:
        ValueError: if there is no such output, or it must be said which one is meant.
    """
    import onnx
    from onnx.utils import Extractor

    found = onnx.load_model_from_string(model)
    inputs = [node.name for node in found.graph.input]
    outputs = [node.name for node in found.graph.output]
    if output is None and len(outputs) > 1:
        raise ValueError(f"it has the outputs {', '.join(outputs)}; say which in trainer.output")
    kept = output or outputs[0]
    if kept not in outputs:
        raise ValueError(f"it has no output {kept!r}; it has {', '.join(outputs)}")
    if len(outputs) > 1:
        found = Extractor(found).extract_model(inputs, [kept])
    _give(found, kept, column)
    found.graph.name, found.doc_string = name, ""
    return bytes(found.SerializeToString(deterministic=True))


def _give(model: "onnx.ModelProto", kept: str, column: int | None) -> None:
    """Make ``prediction`` of the output ``kept``, and the only output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    named = {name for node in graph.node for name in node.output}
    named |= {part.name for part in (*graph.initializer, *graph.input)}

    def unused(name: str) -> str:
        return unused(f"{name}_") if name in named else name

    prediction, chosen, cast = unused(OUTPUT), unused("chosen"), unused("cast")
    place, shape = unused("place"), unused("shape")
    steps = [
        helper.make_node("Cast", [kept], [cast], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [cast, shape], [prediction]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), shape))
    if column is not None:
        graph.initializer.append(numpy_helper.from_array(np.array([column], np.int64), place))
        steps.insert(0, helper.make_node("Gather", [kept, place], [chosen], axis=1))
        steps[1].input[0] = chosen
    graph.node.extend(steps)
    del graph.output[:], graph.value_info[:]
    given = helper.make_tensor_value_info(prediction, onnx.TensorProto.FLOAT, ["rows"])
    graph.output.append(given)


def checked(name: str, model: bytes, matrix: np.ndarray, wanted: np.ndarray | None = None) -> bytes:
    """Return ``model`` after its runtime took it and it answered as it must.

    Args:
        name: of the model, for errors.
        model: as ``one_prediction`` gives it.
        matrix: training inputs, float32, shape (rows, columns).
        wanted: what the original answers for the first ``SAMPLE_ROWS`` of them; None: not known.

    Raises:
        SpecRefused: if ONNX Runtime refuses it, it has other inputs, or answers otherwise.
    """
    from serving.runtimes.onnx import OnnxRuntime

    try:
        runtime = OnnxRuntime(model, rows=matrix)
        given = runtime.predict(matrix[:SAMPLE_ROWS])
    except RuntimeFailed as error:
        raise SpecRefused(name, f"trainer: {error}") from error
    runtime.close()
    if wanted is None:
        return model
    off = np.abs(given - wanted) > _OFF * np.maximum(1, np.abs(wanted))
    if off.mean() > _OFF_SHARE:
        row = int(np.argmax(np.abs(given - wanted)))
        said = (
            f"as ONNX it answers otherwise in {int(off.sum())} of {len(off)} rows (row {row}: "
            f"{given[row]} for {wanted[row]}); choose another estimator or other parameters"
        )
        raise SpecRefused(name, f"trainer: {said}")
    return model
