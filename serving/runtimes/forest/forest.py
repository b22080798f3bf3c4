"""A forest's answers: float32 in, whichever way it lies in memory, predictions out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serving.runtimes.forest.conditions import Conditions, number_conditions
from serving.runtimes.forest.layout import Layout, lay_out
from serving.runtimes.forest.library import Kernel, exponential
from serving.runtimes.forest.model import ARGMAX, ForestModel
from serving.runtimes.forest.records import BYTES, JOB, PLANES, ROWS

_ALIGNMENT = 64
_SHARE = 16 * ROWS  # rows below which a second thread costs more than it saves


class Forest:
    """A model that the kernel answers for. Safe to call from several threads at once."""

    def __init__(self, model: ForestModel, kernel: Kernel, *, threads: int = 1) -> None:
        """Lay out a model.

        Args:
            model: the forest.
            kernel: what computes.
            threads: how many cores a call with many rows may use, at least 1.

        Raises:
            NotCovered: if its columns or trees are more than the kernel can number.
        """
        self.conditions, condition_of = number_conditions(model)
        self._layout = lay_out(model, condition_of)
        self._kernel, self._threads = kernel, threads
        self._base = model.base
        self._transform = model.transform
        self.columns = model.columns
        self.outputs = 1 if model.transform == ARGMAX else len(model.base)
        """Values a row."""
        # Desks are handed from call to call: their memory is paid for once a thread.
        self._desks: list[_Desk] = []

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the predictions of each row.

        Args:
            matrix: float32, shape (rows, columns), in C or Fortran order or a slice of such a one
                (nothing is copied); NaN is missing.

        Returns:
            float32, shape (rows,), or (rows, outputs) where there are several.
        """
        row, column = matrix.strides
        if matrix.dtype != np.float32 or row % 4 or row < 0:
            matrix = np.ascontiguousarray(matrix, np.float32)
            row, column = matrix.strides
        addresses = np.arange(self.columns) * column + matrix.ctypes.data
        return self._answer(addresses, row // 4, len(matrix))

    def predict_columns(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return the predictions of each row, as ``predict`` does, from columns.

        Args:
            columns: float32, each of shape (rows,), in the model's order; one that is contiguous is
                not copied. NaN is missing.
        """
        held = [np.ascontiguousarray(column, np.float32) for column in columns]
        addresses = np.array([column.ctypes.data for column in held], np.int64)
        return self._answer(addresses, 1, len(held[0]))

    def _answer(self, addresses: np.ndarray, row_stride: int, rows: int) -> np.ndarray:
        output = np.empty((rows, self.outputs), np.float32)
        shares = list(_shares(rows, self._threads))

        def run(share: tuple[int, int]) -> None:
            first, count = share
            begin = addresses + 4 * row_stride * first
            self._run(begin, row_stride, count, output[first : first + count])

        if len(shares) == 1:
            self._run(addresses, row_stride, rows, output)
        else:
            with ThreadPoolExecutor(len(shares)) as pool:
                list(pool.map(run, shares))
        return output[:, 0] if self.outputs == 1 else output

    def _run(self, addresses: np.ndarray, row_stride: int, rows: int, output: np.ndarray) -> None:
        try:
            desk = self._desks.pop()
        except IndexError:  # every desk is in use
            desk = _Desk(self.conditions, self._layout, self._base, self._transform)
        desk.job["columns"] = addresses.ctypes.data
        desk.job["row_stride"] = row_stride
        desk.job["rows"] = rows
        desk.job["output"] = output.ctypes.data
        self._kernel(desk.address)
        self._desks.append(desk)


class _Desk:
    """A job with the memory that it works in; one call uses it at a time."""

    def __init__(
        self, conditions: Conditions, layout: Layout, base: np.ndarray, transform: int
    ) -> None:
        arrays = {
            "features": conditions.features,
            "sets": conditions.sets,
            "members": conditions.members,
            "thresholds": conditions.thresholds,
            "starts": conditions.starts,
            "slots": layout.slots,
            "trees": layout.trees,
            "leaf_bytes": layout.leaf_bytes,
            "leaf_values": layout.leaf_values,
            "parts": layout.parts,
            "exits": layout.exits,
            "base": base,
        }
        scratch = {
            "seen": BYTES * (int(conditions.features["count"].max(initial=0)) + 2),
            "conditions": BYTES * conditions.count,
            "values": 4 * ROWS,
            "buckets": 4 * ROWS,
            "turns": 8 * BYTES,
            "index": 2 * ROWS,
            "sums": 4 * ROWS * len(base),
            "masks": BYTES * layout.masks,
            "planes": BYTES * PLANES,
        }
        self.job = np.zeros(1, JOB)
        self.address = self.job.ctypes.data
        self._held = arrays | {name: _zeros(size) for name, size in scratch.items()}
        for name, array in self._held.items():
            self.job[name] = array.ctypes.data
        self.job["feature_count"] = len(conditions.features)
        self.job["tree_count"] = len(layout.trees)
        self.job["outputs"] = len(base)
        self.job["transform"] = transform
        self.job["exponential"] = exponential()


def _zeros(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of what registers ask for."""
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % _ALIGNMENT
    return room[begin : begin + size]


def _shares(rows: int, threads: int) -> Iterator[tuple[int, int]]:
    """Cut rows into one share a thread, each of whole blocks but the last: (first, count)."""
    parts = max(1, min(threads, rows // _SHARE))
    size = max(1, -(-rows // parts // ROWS) * ROWS)
    for first in range(0, max(rows, 1), size):
        yield first, min(size, rows - first)
