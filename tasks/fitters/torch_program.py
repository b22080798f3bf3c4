"""A PyTorch module as data: the graph of ``torch.export`` and its weights, in one file.

Imported where a PyTorch model is trained only.
"""

import math
import warnings
from typing import Any

import torch  # noqa: TID253  (this module is imported where a PyTorch model is trained only)
from torch.export import Dim, ExportedProgram  # noqa: TID253
from torch.fx import Node  # noqa: TID253

from serving.runtimes.torch.program import ARITHMETIC, CONSTANTS, Call, ProgramDocument
from serving.runtimes.torch.safetensors import written

_NAMES = {constant: name for name, constant in CONSTANTS.items()}
_ASSERTIONS = {"aten._assert_tensor_metadata.default", "aten._assert_scalar.default"}
"""What an export notes about its trial input; it computes nothing."""


def program_of(module: torch.nn.Module, columns: int) -> bytes:
    """Return a module as ``serving.runtimes.torch`` reads it.

    Args:
        module: in evaluation mode, on the CPU: float32 (rows, columns) to a number a row.
        columns: how many inputs it takes.

    Raises:
        ValueError: for what no file can say; the message says what.
        RuntimeError: if ``torch.export`` cannot follow the module, as where Python branches on
            values.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, of its own parts
        exported = torch.export.export(
            module, (torch.zeros(2, columns),), dynamic_shapes=({0: Dim("rows", min=1)},)
        ).run_decompositions({})
    document, weights = _document(exported, columns)
    tensors = {name: weight.detach().contiguous().numpy() for name, weight in weights.items()}
    return written(tensors, {"program": document.model_dump_json()})


def _document(
    exported: ExportedProgram, columns: int
) -> tuple[ProgramDocument, dict[str, torch.Tensor]]:
    held = {**exported.state_dict, **exported.constants}
    targets = {spec.arg.name: spec.target for spec in exported.graph_signature.input_specs}
    weights: dict[str, torch.Tensor] = {}
    calls: list[Call] = []
    taken, given = "", ""
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            target = targets[node.name]
            if target is None:
                taken = node.name
            elif node.users:
                weights[node.name] = _weight(held[target])
        elif node.op == "call_function":
            if str(node.target) not in _ASSERTIONS:
                calls.append(_call(node))
        elif node.op == "output":
            (output,) = node.args[0]
            given = output.name
        else:
            raise ValueError(f"{node.op} {node.target} is no part of a graph of plain calls")
    return ProgramDocument(columns=columns, input=taken, output=given, calls=tuple(calls)), weights


def _weight(held: Any) -> torch.Tensor:
    if not isinstance(held, torch.Tensor):
        raise ValueError(f"{type(held).__name__} is no tensor")
    return held


def _call(node: Node) -> Call:
    own = getattr(node.target, "__name__", "")
    name = own if ARITHMETIC.get(own) is node.target else str(node.target)
    options = {key: _told(value) for key, value in node.kwargs.items() if key != "layout"}
    return Call(
        to=node.name,
        operator=name,
        arguments=tuple(_told(argument) for argument in node.args),
        options={key: value for key, value in options.items() if value is not None},
    )


def _told(value: Any) -> Any:
    """An argument as JSON."""
    match value:
        case Node():
            return {"value": value.name}
        case torch.dtype() | torch.memory_format() if value in _NAMES:
            return {"constant": _NAMES[value]}
        case torch.device():
            return {"constant": "device"}
        case float() if not math.isfinite(value):
            return {"constant": str(value)}
        case list() | tuple():
            return [_told(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise ValueError(f"{value!r} cannot be kept")
