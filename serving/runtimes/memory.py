"""Out of memory is no end: the batch is halved, and its size remembered.

How many rows fit on a device depends on the model, the device and who else uses it, so nobody can
know beforehand. ``FittingBatches`` finds out: it starts with many, halves where the library says
that memory is short, and never tries more again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from serving.errors import OutOfMemory, RuntimeFailed

if TYPE_CHECKING:
    from serving.runtimes.runtime import Runtime

MOST_ROWS = 65_536
"""The rows of a first batch: enough to keep a GPU busy, 5 MB of 20 columns."""

Allocate = Callable[[int], np.ndarray]
"""Gives float32, shape (rows,), for the answers of a batch, or raises ``MemoryError``."""

_SAYS_SO = (
    "out of memory",  # cudaErrorMemoryAllocation
    "bad_alloc",  # the C++ library
    "bad allocation",
    "failed to allocate",  # ONNX Runtime's and CUDA's allocators
    "is smaller than requested bytes",  # ONNX Runtime's arena at its limit
    "memory allocation error",  # XGBoost
)


def failure(library: str, action: str, said: str) -> RuntimeFailed:
    """The error of what a library said: ``OutOfMemory`` where it is that."""
    short = any(words in said.lower() for words in _SAYS_SO)
    return (OutOfMemory if short else RuntimeFailed)(action, said, library=library)


def answers(rows: int) -> np.ndarray:
    """Float32, shape (rows,): where the answers of a batch come to lie."""
    return np.empty(rows, np.float32)


def at_most(rows: int) -> Allocate:
    """An allocator for tests, with memory for the answers of ``rows`` rows and no more.

    >>> at_most(2)(3)
    Traceback (most recent call last):
    MemoryError: 3 rows do not fit; 2 do
    """

    def allocate(wanted: int) -> np.ndarray:
        if wanted > rows:
            raise MemoryError(f"{wanted} rows do not fit; {rows} do")
        return answers(wanted)

    return allocate


class FittingBatches:
    """Calls of a runtime with as many rows as fit into memory."""

    def __init__(
        self, runtime: "Runtime", *, rows: int = MOST_ROWS, allocate: Allocate = answers
    ) -> None:
        self.rows = rows
        """How many rows go into a call at most; it only ever shrinks."""
        self._runtime, self._allocate = runtime, allocate

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row, float32, shape (rows,); see ``Runtime.predict``.

        Raises:
            OutOfMemory: if not even one row fits.
        """
        done: list[np.ndarray] = []
        begin = 0
        while begin < len(matrix) or not done:
            batch = matrix[begin : begin + self.rows]
            try:
                done.append(self._predict(batch))
            except (OutOfMemory, MemoryError) as error:
                self._halve(len(batch), error)
            else:
                begin += len(batch)
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _predict(self, batch: np.ndarray) -> np.ndarray:
        room = self._allocate(len(batch))
        room[:] = self._runtime.predict(batch)
        return room

    def _halve(self, rows: int, error: OutOfMemory | MemoryError) -> None:
        if rows <= 1:
            raise OutOfMemory(
                "predict",
                f"not even one row fits into memory: {error} "
                "Give the worker more, or let fewer workers share the device.",
            ) from error
        # Another thread may have halved in between; the smaller number stands.
        self.rows = min(self.rows, rows // 2)
