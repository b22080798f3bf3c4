"""Graphs: bundles and Python functions that feed each other, with branches in parallel.

The model is a small document, ``graph.json``. A node is a bundle, named by its digest, or a
function of ``featurestore/transforms/``, named and pinned by the hash of its source like a
request-time feature. So a graph holds no code, and a server whose functions differ refuses it.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from headrace.errors import UnknownName
from headrace.graph import in_order
from headrace.mapped import Data
from headrace.part import Part
from headrace.transform import find_transform
from serving.errors import RuntimeFailed
from serving.runtimes.device import Device
from serving.runtimes.runtime import Member

LIBRARY = "the graph"
PARALLEL_ROWS = 64
"""Rows from which branches are computed in parallel; handing fewer to threads costs more than it
gains."""
_failed = partial(RuntimeFailed, library=LIBRARY)


class BundleStep(Part):
    """A node that is a bundle."""

    name: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    inputs: dict[str, str] = Field(default_factory=dict)
    """Column or node for those of the bundle's columns that go by another name here."""


class FunctionStep(Part):
    """A node that is a function of columns and nodes."""

    name: str
    function: str
    source_sha256: str
    inputs: Annotated[tuple[str, ...], Field(min_length=1)]


class GraphDocument(Part):
    """What ``graph.json`` says."""

    format: Literal["headrace-graph-1"] = "headrace-graph-1"
    nodes: Annotated[tuple[BundleStep | FunctionStep, ...], Field(min_length=1)]
    output: str


@dataclass(frozen=True)
class _Node:
    name: str
    inputs: tuple[str, ...]
    compute: Callable[[list[np.ndarray]], np.ndarray]
    """From the inputs, each of shape (rows,), to float64, shape (rows,)."""


class GraphRuntime:
    """One loaded graph. Safe to call from several threads."""

    def __init__(
        self,
        model: Data,
        *,
        columns: Sequence[str],
        member: Callable[[str], Member],
        threads: int = 1,
    ) -> None:
        """Load a graph and its bundles.

        Args:
            model: a ``GraphDocument`` as JSON.
            columns: the names of the inputs, in order.
            member: loads the bundle of a digest.
            threads: 1: one node after the other; else branches are computed in parallel.

        Raises:
            RuntimeFailed: if the document is of another format, a function is not there or not
                the one that was pinned, or the nodes do not fit together.
            BundleRefused: if a bundle is.
        """
        try:
            document = GraphDocument.model_validate_json(bytes(model))
        except ValidationError as error:
            raise _failed("load the model", f"it is of another format: {error}") from error
        self._names, self.columns = tuple(columns), len(columns)
        self._members: list[Member] = []
        nodes = [self._node(step, member) for step in document.nodes]
        by_name = {node.name: node for node in nodes}
        if len(by_name) < len(nodes):
            raise _failed("load the model", "it has two nodes of one name")
        taken = {node.name: node.inputs for node in nodes}
        try:
            order = in_order(taken, output=document.output, columns=columns)
        except ValueError as error:
            raise _failed("load the model", str(error)) from error
        self._order, self._output = [by_name[name] for name in order], document.output
        on_gpu = any(part.device == "cuda" for part in self._members)
        self.device: Device = "cuda" if on_gpu else "cpu"
        self._pool = ThreadPoolExecutor(len(nodes), "graph-node") if threads != 1 else None
        self._closed = False

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row; see ``Runtime.predict``."""
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            raise _failed("predict", f"shape {matrix.shape} is not (rows, {self.columns})")
        if self._closed:
            raise _failed("predict", "the model was closed")
        if self._pool is None or len(matrix) < PARALLEL_ROWS:
            answers = self.values(matrix)[self._output]
        else:
            answers = self._in_parallel(self._columns(matrix), self._pool)
        return answers.astype(np.float32)

    def values(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """Return what each column and node gives for each row, computed one after the other.

        Args:
            matrix: float32, shape (rows, columns); NaN is missing.

        Returns:
            By name, shape (rows,): float32 for columns, float64 for nodes.
        """
        values = self._columns(matrix)
        for node in self._order:
            values[node.name] = node.compute([values[name] for name in node.inputs])
        return values

    def close(self) -> None:
        """Free the bundles; safe to call twice."""
        self._closed = True
        if self._pool:
            self._pool.shutdown()
        for part in self._members:
            part.close()

    def _columns(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, matrix.T, strict=True))

    def _in_parallel(
        self, columns: Mapping[str, np.ndarray], pool: ThreadPoolExecutor
    ) -> np.ndarray:
        given: dict[str, Future[np.ndarray]] = {}

        def run(node: _Node) -> np.ndarray:
            # Whatever feeds a node was handed over before it, so no thread waits for a later one.
            return node.compute(
                [given[n].result() if n in given else columns[n] for n in node.inputs]
            )

        for node in self._order:
            given[node.name] = pool.submit(run, node)
        return given[self._output].result()

    def _node(self, step: BundleStep | FunctionStep, member: Callable[[str], Member]) -> _Node:
        if isinstance(step, FunctionStep):
            return _Node(step.name, step.inputs, _function(step))
        part = member(step.digest)
        self._members.append(part)
        if unknown := sorted(set(step.inputs) - set(part.columns)):
            said = f"node {step.name!r} names {unknown[0]!r}, which its bundle does not take"
            raise _failed("load the model", said)
        inputs = tuple(step.inputs.get(column, column) for column in part.columns)
        return _Node(step.name, inputs, partial(_ask, part))


def _ask(part: Member, inputs: list[np.ndarray]) -> np.ndarray:
    return part.predict(np.stack(inputs, axis=1).astype(np.float32)).astype(np.float64)


def _function(step: FunctionStep) -> Callable[[list[np.ndarray]], np.ndarray]:
    try:
        found = find_transform(step.function)
    except UnknownName as error:
        raise _failed("load the model", str(error)) from error
    if found.source_sha256 != step.source_sha256:
        said = (
            f"function {step.function} is not the one it was built with (source "
            f"{found.source_sha256[:12]}, pinned {step.source_sha256[:12]})"
        )
        raise _failed("load the model", said)

    def compute(inputs: list[np.ndarray]) -> np.ndarray:
        try:
            with np.errstate(all="ignore"):
                given = found(*(np.asarray(values, np.float64) for values in inputs))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _failed("predict", f"function {step.function}: {error}") from error
        if given.shape != inputs[0].shape:
            said = f"function {step.function} gives {given.shape} for {inputs[0].shape}"
            raise _failed("predict", said)
        return given

    return compute
