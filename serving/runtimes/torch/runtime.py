"""PyTorch networks, from the graph that ``torch.export`` made of them.

Imported for such bundles only: PyTorch costs seconds and a few hundred megabytes. The weights are
used where they lie, in a map of the bundle's file, so a network of many gigabytes loads without a
copy; only the pages that an answer needs are read.
"""

import functools
import warnings

import numpy as np
import torch  # noqa: TID253  (this module is imported for PyTorch bundles only)
from pydantic import ValidationError

from headrace.mapped import Data
from serving.errors import RuntimeFailed
from serving.runtimes.blocks import Blocks
from serving.runtimes.device import Device, DeviceChoice, choose_device
from serving.runtimes.memory import failure
from serving.runtimes.torch.program import DTYPES, Program, ProgramDocument
from serving.runtimes.torch.safetensors import NotSafetensors, Tensor, read_header

LIBRARY = "PyTorch"
_failed = functools.partial(RuntimeFailed, library=LIBRARY)


class TorchRuntime:
    """One loaded model. Safe to call from several threads."""

    def __init__(
        self,
        model: Data,
        *,
        rows: np.ndarray | None = None,
        threads: int = 1,
        device: DeviceChoice = "cpu",
    ) -> None:
        """Load a model.

        PyTorch itself computes with one thread from now on, in the whole process: with several it
        adds up in another order.

        Args:
            model: a safetensors file with a ``ProgramDocument`` in its metadata.
            rows: typical inputs, to find out which block sizes answer with the same bits; None:
                only the largest block is used, which is slow for single rows.
            threads: how many blocks are computed at a time; 0: one a core.
            device: where to compute.

        Raises:
            RuntimeFailed: if the bytes are no such model.
            DeviceMissing: if ``cuda`` was asked for and cannot be used.
        """
        document, tensors = _read(model)
        self.columns = document.columns
        self.device: Device = choose_device(
            device,
            library=LIBRARY,
            builds_cuda=torch.version.cuda is not None,
            remedy="install the CUDA build of torch",
        )
        try:
            weights = {n: _weight(model, t).to(self.device) for n, t in tensors.items()}
            self._program: Program | None = Program(document, weights)
        except ValueError as error:
            raise _failed("load the model", str(error)) from error
        except RuntimeError as error:
            raise failure(LIBRARY, "load the model", str(error)) from error
        torch.set_num_threads(1)
        self._blocks: Blocks | None = None
        if self.device == "cpu":
            self._blocks = Blocks(self._run, LIBRARY, rows=rows, threads=threads)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row; see ``Runtime.predict``.

        On a GPU the rows are computed as they come, so the last bits of an answer may depend on
        the other rows there.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            raise _failed("predict", f"shape {matrix.shape} is not (rows, {self.columns})")
        if self._program is None:
            raise _failed("predict", "the model was closed")
        if len(matrix) == 0:
            return np.empty(0, np.float32)
        if self._blocks is None:
            return self._run(np.ascontiguousarray(matrix, np.float32))
        return self._blocks.predict(matrix)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._program = None
        if self._blocks:
            self._blocks.close()

    def _run(self, rows: np.ndarray) -> np.ndarray:
        program = self._program
        if program is None:
            raise _failed("predict", "the model was closed")
        if not rows.flags.writeable:
            rows = rows.copy()  # PyTorch warns of memory that it must not write
        try:
            with torch.inference_mode():
                given = program(torch.from_numpy(rows).to(self.device))
                answers = given.to("cpu", torch.float32).numpy()
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise failure(LIBRARY, "predict", str(error).split("\n", 1)[0]) from error
        if answers.size != len(rows):
            raise _failed("predict", f"it gave {answers.size} values for {len(rows)} rows")
        return np.asarray(answers.reshape(len(rows)))


def _read(model: Data) -> tuple[ProgramDocument, dict[str, Tensor]]:
    try:
        tensors, text = read_header(model)
        return ProgramDocument.model_validate_json(text.get("program", "")), tensors
    except (NotSafetensors, ValidationError) as error:
        raise _failed("load the model", f"it is of another format: {error}") from error


def _weight(model: Data, told: Tensor) -> torch.Tensor:
    if told.values == 0:
        return torch.empty(told.shape, dtype=DTYPES[told.dtype])
    with warnings.catch_warnings():
        # The memory cannot be written, and no allowed operator writes.
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(
            model, dtype=DTYPES[told.dtype], count=told.values, offset=told.offset
        )
    return flat.reshape(told.shape)
