"""Equal rows scored once, where that pays.

Finding equal rows costs about a fifth of what the forest kernel takes for a row, and much less than
any other model does, so it pays where many rows repeat. Whether they do is seen in the first rows
of a batch, by their share alone: never by a clock, which would make two runs of a shard differ.
docs/batch.md has the figures.
"""

from collections.abc import Callable

import numpy as np

_PROBED_ROWS = 2_048
REPEATED_SHARE = 0.5
"""From which share of repeated rows on equal rows are scored once."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: mixes what it multiplies


def predict_distinct(predict: Callable[[np.ndarray], np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """Return the prediction of each row; equal rows are scored once where many repeat.

    Args:
        predict: of a float32 matrix, shape (rows, columns): float32, shape (rows,).
        matrix: float32, shape (rows, columns), C order.
    """
    if _repeated_share(matrix[:_PROBED_ROWS]) < REPEATED_SHARE:
        return predict(matrix)
    first, place = distinct_rows(matrix)
    predictions: np.ndarray = predict(matrix[first])[place]
    return predictions


def distinct_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of which the others are copies, bit for bit.

    Returns:
        The position of the first of each, int64, and for each row its place among them.
    """
    _, first, place = np.unique(_hashes(matrix), return_index=True, return_inverse=True)
    bits = matrix.view(np.uint32)
    if np.array_equal(bits, bits[first[place]]):
        return first, place
    # Two different rows have one hash: not seen in 2**32 rows, and no reason to be wrong.
    everyone = np.arange(len(matrix))
    return everyone, everyone


def _repeated_share(matrix: np.ndarray) -> float:
    if not matrix.size:
        return 0.0
    return 1 - len(np.unique(_hashes(matrix))) / len(matrix)


def _hashes(matrix: np.ndarray) -> np.ndarray:
    """uint64, shape (rows,): equal for rows with equal bits."""
    bits = matrix.view(np.uint32)
    total = np.zeros(len(bits), np.uint64)
    for column in bits.T:
        total += column
        total *= _FACTOR
        total ^= total >> np.uint64(29)
    return total
