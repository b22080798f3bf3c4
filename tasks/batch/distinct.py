"""Equal rows scored once, where that pays.

Whether it pays is seen in the rows themselves, never by a clock: two runs of a shard must do the
same. A sample of each batch is looked at; where some of its rows repeat, equal rows of the whole
batch are found, and scored once if three in four are copies. Finding them costs about as much as
the forest kernel takes to score them (150 to 250 ns a row of 20 features against 280), so fewer
copies would not pay there. docs/batch.md has the figures.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

_SAMPLED_ROWS = 2_048
SAMPLED_SHARE = 1 / 16
"""Of the sampled rows so many must be copies. Of a batch of 65,536 rows some 75% are, then."""
SAVED_SHARE = 0.75
"""Of the batch's rows so many must be copies for equal rows to be scored once."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: mixes what it multiplies


def predict_distinct(predict: Callable[[np.ndarray], np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """Return the prediction of each row; equal rows are scored once where many repeat.

    Args:
        predict: of a float32 matrix, shape (rows, columns): float32, shape (rows,).
        matrix: float32, shape (rows, columns), C order.
    """
    sample = matrix[:_SAMPLED_ROWS]
    if repeated_share(sample) < SAMPLED_SHARE:
        return predict(matrix)
    first, place = distinct_rows(matrix)
    if len(first) > (1 - SAVED_SHARE) * len(matrix):
        return predict(matrix)
    predictions: np.ndarray = predict(matrix[first])[place]
    return predictions


def distinct_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of which the others are copies, bit for bit.

    Returns:
        The position of the first of each, int64, and for each row its place among them.
    """
    encoded = pa.array(_hashes(matrix)).dictionary_encode()
    place = encoded.indices.to_numpy()
    first = np.empty(len(encoded.dictionary), np.int64)
    first[place[::-1]] = np.arange(len(matrix) - 1, -1, -1)  # the first of equal rows is set last
    bits = matrix.view(np.uint32)
    if np.array_equal(bits, bits[first[place]]):
        return first, place
    # Two different rows have one hash: one chance in 2**33 a batch, and no reason to be wrong.
    everyone = np.arange(len(matrix))
    return everyone, everyone


def repeated_share(matrix: np.ndarray) -> float:
    """The share of rows that are a copy of an earlier one."""
    if not matrix.size:
        return 0.0
    return 1 - len(distinct_rows(matrix)[0]) / len(matrix)


def _hashes(matrix: np.ndarray) -> np.ndarray:
    """uint64, shape (rows,): equal for rows with equal bits."""
    bits = matrix.view(np.uint32)
    total = np.zeros(len(bits), np.uint64)
    for column in bits.T:
        total += column
        total *= _FACTOR
        total ^= total >> np.uint64(29)
    return total
