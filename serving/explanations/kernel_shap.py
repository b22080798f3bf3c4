"""KernelSHAP: Shapley values of any model, by asking it.

The value of a coalition of columns is the mean prediction of rows that have those columns from the
row to be explained and the others from the rows of a background (Lundberg and Lee, "A Unified
Approach to Interpreting Model Predictions", NeurIPS 2017). Up to ``MOST_EXACT`` columns every
coalition is asked and the result is exact. With more, coalitions are drawn in pairs, each with its
complement, by the paper's kernel (the drawing of Covert and Lee, "Improving KernelSHAP", AISTATS
2021), and the standard error is told, by the jackknife over groups of pairs. The seed is fixed: the
same row gets the same explanation.
"""

import math
from collections.abc import Callable

import numpy as np

from serving.explanations.explanation import Explanation

MOST_EXACT = 12
"""Columns up to which all 2^columns coalitions are asked."""
PAIRS = 1024
"""Pairs of coalitions that are drawn beyond, and one more for each column."""
MODEL_ROWS = 65_536
"""Rows that are given to the model at once."""
_GROUPS = 16

Predict = Callable[[np.ndarray], np.ndarray]
"""A model: float32 (rows, columns) to float32 (rows,)."""


def kernel_shap(predict: Predict, matrix: np.ndarray, background: np.ndarray) -> Explanation:
    """Explain the prediction of each row of ``matrix``, in the unit of the prediction.

    A row costs ``2^columns`` (up to 12 columns) or ``2 * (1024 + columns)`` predictions for each
    row of the background.

    Args:
        predict: the model.
        matrix: float32, shape (rows, columns); NaN is missing, and counts as a value.
        background: what "not known" means: float32, shape (some rows, columns), at least one.
    """
    rows, columns = matrix.shape
    exact = columns <= MOST_EXACT
    coalitions = _all(columns) if exact else _drawn(columns)
    contributions = np.empty((rows, columns), np.float32)
    base, margin = np.empty(rows), predict(matrix)
    error = None if exact else np.empty((rows, columns))
    nothing = float(predict(background).mean(dtype=np.float64))
    for place, row in enumerate(matrix):
        values = _values(predict, row, coalitions, background)
        base[place] = nothing
        if error is None:
            contributions[place] = _shapley(values, columns)
        else:
            gain = float(margin[place]) - nothing
            contributions[place], error[place] = _regressed(coalitions, values - nothing, gain)
    return Explanation(
        base=base,
        contributions=contributions,
        margin=margin.astype(np.float64),
        predictions=margin,
        scale="value",
        method="kernel_shap_exact" if exact else "kernel_shap_sampled",
        error=error,
    )


def _values(
    predict: Predict, row: np.ndarray, coalitions: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """The value of each coalition: float64, shape (coalitions,)."""
    values = np.empty(len(coalitions))
    step = max(MODEL_ROWS // len(background), 1)
    for begin in range(0, len(coalitions), step):
        part = coalitions[begin : begin + step]
        mixed = np.where(part[:, None, :], row, background)  # (coalitions, background, columns)
        given = predict(mixed.reshape(-1, len(row)))
        values[begin : begin + step] = given.reshape(len(part), -1).mean(axis=1, dtype=np.float64)
    return values


def _all(columns: int) -> np.ndarray:
    """Every coalition: bool, shape (2^columns, columns); bit i of a place says column i."""
    return (np.arange(2**columns)[:, None] >> np.arange(columns) & 1).astype(bool)


def _shapley(values: np.ndarray, columns: int) -> np.ndarray:
    """Shapley's formula over all coalitions, in the order of ``_all``."""
    places = np.arange(len(values))
    sizes = _all(columns).sum(axis=1)
    weights = np.array([1 / (columns * math.comb(columns - 1, s)) for s in range(columns)])
    found = np.empty(columns)
    for column in range(columns):
        without = places[places >> column & 1 == 0]
        gains = values[without | 1 << column] - values[without]
        found[column] = weights[sizes[without]] @ gains
    return found


def _drawn(columns: int) -> np.ndarray:
    """Pairs of coalitions: bool, shape (2 * pairs, columns); a pair lies side by side."""
    random = np.random.default_rng(0)
    sizes = np.arange(1, columns)
    chance = 1 / (sizes * (columns - sizes))  # the kernel, times how many coalitions have the size
    pairs = math.ceil((PAIRS + columns) / _GROUPS) * _GROUPS
    drawn = random.choice(sizes, pairs, p=chance / chance.sum())
    ranks = random.random((pairs, columns)).argsort(axis=1).argsort(axis=1)
    first = ranks < drawn[:, None]
    return np.stack([first, ~first], axis=1).reshape(-1, columns)


def _regressed(
    coalitions: np.ndarray, gains: np.ndarray, gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions that add up to ``gain`` and fit each coalition's best, and their error."""
    columns = coalitions.shape[1]
    groups = coalitions.reshape(_GROUPS, -1, columns).astype(np.float64)
    products = np.einsum("gni,gnj->gij", groups, groups)
    sums = np.einsum("gni,gn->gi", groups, gains.reshape(_GROUPS, -1))
    whole = _constrained(products.sum(axis=0), sums.sum(axis=0), gain)
    left_out = np.array(
        [
            _constrained(products.sum(axis=0) - product, sums.sum(axis=0) - part, gain)
            for product, part in zip(products, sums, strict=True)
        ]
    )
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    return whole, np.sqrt(spread * (_GROUPS - 1) / _GROUPS)


def _constrained(products: np.ndarray, sums: np.ndarray, gain: float) -> np.ndarray:
    """Least squares with the sum of the answer fixed (Lagrange)."""
    free = np.linalg.solve(products, sums)
    ones = np.linalg.solve(products, np.ones(len(sums)))
    return np.asarray(free - ones * (free.sum() - gain) / ones.sum())
