"""Blocks of a few sizes, so that a row's answer does not depend on the rows that come with it.

A matrix product of one row takes another way through a library than one of a hundred, and adds up
in another order: the same row answers with other last bits (measured with ONNX Runtime 1.31: a
logistic regression differs in 718 of 2,048 rows between calls of 1 row and of more; forests do so
between 1 and 2 threads). So rows are cut into blocks of a few fixed sizes, the last one filled up
with copies, and a size is used only if on trial rows its answers are bit for bit those of the
largest.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from serving.errors import RuntimeFailed

SIZES = (256, 32, 4, 1)
"""From the size that costs least a row to the one that costs least a call."""

Call = Callable[[np.ndarray], np.ndarray]
"""A model: float32 (rows, columns) to float32 (rows,)."""


@dataclass(frozen=True)
class Block:
    """Rows ``begin`` until ``begin + rows``, to be computed as ``size`` rows."""

    begin: int
    rows: int
    size: int


class Blocks:
    """A model whose rows are cut into blocks, which threads share out."""

    def __init__(self, call: Call, library: str, *, rows: np.ndarray | None, threads: int) -> None:
        """Try which sizes answer with the same bits.

        Args:
            call: the model; safe to call from several threads.
            library: its name, for errors.
            rows: typical inputs for the trial, float32, shape (rows, columns); None: only the
                largest size is used, which needs no trial and is slow for single rows.
            threads: how many blocks are computed at a time; 0: one a core.

        Raises:
            RuntimeFailed: if a row's answer depends on the rows beside it.
        """
        self._call = call
        self._sizes = SIZES[:1] if rows is None else _proved_sizes(call, library, rows)
        wanted = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(wanted, "model-blocks") if wanted > 1 else None

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row, at least one: float32, shape (rows,)."""
        parts = list(cut(len(matrix), self._sizes))
        if len(parts) == 1:
            return compute(self._call, matrix, parts[0])
        each = functools.partial(compute, self._call, matrix)
        return np.concatenate(list(self._pool.map(each, parts) if self._pool else map(each, parts)))

    def close(self) -> None:
        """Let the threads go; safe to call twice."""
        if self._pool:
            self._pool.shutdown()


def _proved_sizes(call: Call, library: str, rows: np.ndarray) -> tuple[int, ...]:
    trial = trial_rows(rows)
    if depends_on_neighbours(call, trial):
        said = "its answer for a row depends on the rows beside it; a server sees others there"
        raise RuntimeFailed("use the model", said, library=library)
    return agreeing_sizes(call, trial)


def cut(rows: int, sizes: Sequence[int]) -> Iterator[Block]:
    """Cut ``rows`` rows into blocks of ``sizes``, which are in falling order.

    >>> [(block.rows, block.size) for block in cut(300, (256, 32, 4, 1))]
    [(256, 256), (32, 32), (4, 4), (4, 4), (4, 4)]
    >>> [(block.rows, block.size) for block in cut(300, (256,))]
    [(256, 256), (44, 256)]
    """
    begin = 0
    for place, size in enumerate(sizes):
        last = place == len(sizes) - 1
        # Filling up half a block costs no more than several smaller ones.
        while (left := rows - begin) >= size or left > size // 2 or (last and left > 0):
            yield Block(begin, min(left, size), size)
            begin += min(left, size)


def compute(call: Call, matrix: np.ndarray, block: Block) -> np.ndarray:
    """Return the answers of one block: float32, shape (block.rows,)."""
    rows = matrix[block.begin : block.begin + block.rows]
    if block.rows < block.size:
        # Filled up with a row that is there: it costs what others cost, and is surely no NaN trap.
        filling = np.broadcast_to(rows[-1], (block.size - block.rows, rows.shape[1]))
        rows = np.concatenate([rows, filling])
    return call(np.ascontiguousarray(rows, np.float32))[: block.rows]


def trial_rows(rows: np.ndarray) -> np.ndarray:
    """Rows to try a model on: two of the largest blocks, made of the values of ``rows``.

    Each column keeps its own values, in another order; the same rows give the same trial.
    """
    random = np.random.default_rng(0)
    taken = rows[random.integers(0, len(rows), 2 * SIZES[0])]
    return random.permuted(taken, axis=0)


def depends_on_neighbours(call: Call, trial: np.ndarray) -> bool:
    """Whether a row answers otherwise in another place, among other rows, of a block."""
    order = np.random.default_rng(1).permutation(len(trial))
    largest = SIZES[:1]
    straight, shuffled = _answers(call, trial, largest), _answers(call, trial[order], largest)
    return not _same_bits(straight[order], shuffled)


def agreeing_sizes(call: Call, trial: np.ndarray) -> tuple[int, ...]:
    """Those of ``SIZES`` whose answers have the bits of the largest's."""
    wanted = _answers(call, trial, SIZES[:1])
    smaller = [s for s in SIZES[1:] if _same_bits(_answers(call, trial, (s,)), wanted)]
    return (SIZES[0], *smaller)


def _answers(call: Call, rows: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate([compute(call, rows, block) for block in cut(len(rows), sizes)])


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one.view(np.uint32), other.view(np.uint32)))
