"""What every runtime is, and the one table from a runtime's name to the class that opens it.

A library is imported when a bundle needs it: a server of XGBoost bundles never loads ONNX Runtime.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.mapped import Data
from headrace.trainers import RuntimeName
from serving.errors import RuntimeFailed
from serving.runtimes.device import Device, DeviceChoice


class Runtime(Protocol):
    """One loaded model. Safe to call from several threads."""

    columns: int
    """How many inputs it takes."""
    device: Device
    """Where it computes."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row.

        On the CPU the answer for a row is the same, bit for bit, whichever rows come with it and
        however many threads compute.

        Args:
            matrix: float32, shape (rows, columns); NaN is missing.

        Returns:
            float32, shape (rows,); the caller's own.

        Raises:
            RuntimeFailed: for another number of columns, what the library refuses, or a runtime
                that was closed; ``OutOfMemory`` where fewer rows at once may do.
        """

    def close(self) -> None:
        """Free the model; safe to call twice."""


class Member(Protocol):
    """A bundle that an ensemble or a graph is made of."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Its input columns, in order."""

    @property
    def device(self) -> Device:
        """Where it computes."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """As ``Runtime.predict``."""

    def close(self) -> None:
        """As ``Runtime.close``."""


@dataclass(frozen=True)
class Opening:
    """What a runtime is opened with, besides its model."""

    columns: tuple[str, ...]
    """The input columns, in order."""
    member: Callable[[str], Member]
    """Loads the bundle of a digest; for ensembles and graphs."""
    rows: np.ndarray | None = None
    """Typical inputs, float32, shape (rows, columns), on which a runtime may try its ways to
    compute; None: it takes the one that needs no trial."""
    threads: int = 1
    """How many cores one ``predict`` may use; 0: all."""
    device: DeviceChoice = "cpu"
    memory_share: float = 0.8
    """The share of a GPU's memory that the runtime may take."""


def open_runtime(name: RuntimeName, model: Data, opening: Opening) -> Runtime:
    """Return the runtime of a model, given as what its verified file holds.

    Raises:
        RuntimeFailed: if its library refuses the bytes, or is not installed.
        DeviceMissing: if ``cuda`` was asked for and cannot be used.
        BundleRefused: if a member of an ensemble is.
    """
    return _OPENERS[name](model, opening)


def _open_xgboost(model: Data, opening: Opening) -> Runtime:
    from serving.runtimes.xgboost import XGBoostRuntime

    return XGBoostRuntime(model, threads=opening.threads, device=opening.device)


def _open_onnx(model: Data, opening: Opening) -> Runtime:
    try:
        from serving.runtimes.onnx import OnnxRuntime
    except ModuleNotFoundError as error:
        said = f"{error.name} is not installed; run pip install onnxruntime onnx"
        raise RuntimeFailed("start", said, library="ONNX Runtime") from error

    return OnnxRuntime(
        model,
        rows=opening.rows,
        threads=opening.threads,
        device=opening.device,
        memory_share=opening.memory_share,
    )


def _open_torch(model: Data, opening: Opening) -> Runtime:
    try:
        from serving.runtimes.torch.runtime import TorchRuntime
    except ModuleNotFoundError as error:
        said = f"{error.name} is not installed; run pip install torch==2.13.0"
        raise RuntimeFailed("start", said, library="PyTorch") from error

    return TorchRuntime(model, rows=opening.rows, threads=opening.threads, device=opening.device)


def _open_ensemble(model: Data, opening: Opening) -> Runtime:
    from serving.runtimes.ensemble import EnsembleRuntime

    return EnsembleRuntime(model, columns=opening.columns, member=opening.member)


def _open_graph(model: Data, opening: Opening) -> Runtime:
    from serving.runtimes.graph import GraphRuntime

    return GraphRuntime(
        model, columns=opening.columns, member=opening.member, threads=opening.threads
    )


_OPENERS: dict[RuntimeName, Callable[[Data, Opening], Runtime]] = {
    "xgboost": _open_xgboost,
    "onnx": _open_onnx,
    "torch": _open_torch,
    "ensemble": _open_ensemble,
    "graph": _open_graph,
}
