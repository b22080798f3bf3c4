"""One ONNX graph with one answer a row: what every model that runs in ONNX Runtime becomes here.

Converters leave several outputs (labels beside probabilities), columns for each class and names
of their own. ``one_prediction`` cuts the graph down to the one float32 a row that is wanted.
"""

from typing import TYPE_CHECKING

import numpy as np

from headrace.bundle import OUTPUT

if TYPE_CHECKING:
    import onnx


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
