"""A network as data: the calls of a ``torch.export`` graph, one after the other.

The graph lies as JSON in the metadata of a safetensors file, whose tensors are the weights. A call
names an allowed operator and its arguments: numbers, text, lists, and references to a weight, the
input, or what an earlier call gave. Nothing in it is code, and none of PyTorch's own loaders is
asked, which run what a file tells them to (``docs/decisions/0026-runtimes.md``).
"""

import operator as arithmetic
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch  # noqa: TID253  (imported where a PyTorch model is loaded only)
from pydantic import Field

from headrace.part import Part
from serving.runtimes.torch.operators import operator

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CONSTANTS: dict[str, Any] = {
    **DTYPES,
    "contiguous": torch.contiguous_format,
    "preserve": torch.preserve_format,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
}
"""What JSON has no form of; ``device`` is one too, and is where the model computes."""
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "getitem": arithmetic.getitem,  # one of several results
    "add": arithmetic.add,  # of sizes
    "sub": arithmetic.sub,
    "mul": arithmetic.mul,
    "floordiv": arithmetic.floordiv,
}
"""Python's own operators on sizes, which a graph has where a shape depends on the rows."""


Values = dict[str, Any]


class Call(Part):
    """One call."""

    to: str
    """What its result is called from then on."""
    operator: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)


class ProgramDocument(Part):
    """What the metadata says under ``program``."""

    format: Literal["headrace-torch-1"] = "headrace-torch-1"
    columns: int = Field(ge=1)
    input: str
    output: str
    calls: tuple[Call, ...]


class Program:
    """The calls, found and checked."""

    def __init__(self, document: ProgramDocument, weights: Mapping[str, torch.Tensor]) -> None:
        """Find every operator and check every reference.

        Raises:
            ValueError: for an operator that is not allowed, a name that is not known at its place
                or given twice, or an argument of an unknown form.
        """
        self._input, self._output, self._weights = document.input, document.output, dict(weights)
        device = next((weight.device for weight in weights.values()), torch.device("cpu"))
        constants = CONSTANTS | {"device": device}
        known = {document.input, *weights}
        self._calls = []
        for call in document.calls:
            if call.to in known:
                raise ValueError(f"{call.to!r} is given twice")
            found = ARITHMETIC.get(call.operator) or operator(call.operator)
            arguments = [_argument(value, known, constants) for value in call.arguments]
            options = {n: _argument(value, known, constants) for n, value in call.options.items()}
            self._calls.append((call.to, found, arguments, options))
            known.add(call.to)
        if document.output not in known:
            raise ValueError(f"its output {document.output!r} is computed by no call")

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the output for an input."""
        values: Values = {**self._weights, self._input: rows}
        for to, function, arguments, options in self._calls:
            values[to] = function(
                *[filled(values) for filled in arguments],
                **{name: filled(values) for name, filled in options.items()},
            )
        output: torch.Tensor = values[self._output]
        return output


def _argument(value: Any, known: set[str], constants: Values) -> Callable[[Values], Any]:
    """What gives an argument, once values are known."""
    match value:
        case {"value": str(name), **rest} if not rest:
            if name not in known:
                raise ValueError(f"{name!r} is used before it is given")
            return lambda values: values[name]
        case {"constant": str(name), **rest} if not rest and name in constants:
            constant = constants[name]
            return lambda _: constant
        case list(items):
            parts = [_argument(item, known, constants) for item in items]
            return lambda values: [part(values) for part in parts]
        case None | bool() | int() | float() | str():
            return lambda _: value
        case _:
            raise ValueError(f"{value!r} is no argument")
