"""Before the kernel answers for a model: the same bits as XGBoost's predictor, and faster.

The rows are made for the forest. Every column takes every value at which it could turn out wrong:
each of its thresholds, the float below and the float above, missing, both infinities, both zeros,
the least float; of categories also what is no category.
"""

import time
from collections.abc import Callable

import numpy as np

from serving.errors import ServingError
from serving.runtimes.forest.forest import Forest
from serving.runtimes.forest.model import NotCovered

Predict = Callable[[np.ndarray], np.ndarray]
_COUNTS = (1, 33, 300)  # a row alone, and blocks that are not full
_LEAST, _MOST = 512, 4096
_AT_A_TIME = 256  # others may ask XGBoost in between
_TINY, _HUGE = np.float32(1e-45), np.float32(3e38)
_ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, _TINY, -_TINY, _HUGE, -_HUGE], np.float32)
_NO_CATEGORY = np.array([-1, -0.5, 0.5, 1 << 24, 1e9], np.float32)
_TRIED_ROWS = (1, 4, 16, 64, 256, 1024)
_ROUNDS = 5


class ProofFailed(ServingError):
    """The kernel and XGBoost's predictor differ."""

    def __init__(self, row: np.ndarray, ours: np.float32, theirs: np.float32) -> None:
        super().__init__(f"the kernel gives {ours!r}, XGBoost {theirs!r} for {row.tolist()}")


def prove(forest: Forest, predict: Predict) -> None:
    """Compare the kernel with XGBoost's predictor, bit for bit.

    Args:
        forest: with one output a row.
        predict: XGBoost's predictor of the same model.

    Raises:
        ProofFailed: if a bit differs.
    """
    rows = proof_rows(forest)
    blocks = [rows[i : i + _AT_A_TIME] for i in range(0, len(rows), _AT_A_TIME)]
    wanted = np.concatenate([predict(block) for block in blocks])
    for count in (*_COUNTS, len(rows)):
        given = forest.predict(rows[:count])
        differs = np.flatnonzero(given.view(np.uint32) != wanted[:count].view(np.uint32))
        if len(differs):
            first = differs[0]
            raise ProofFailed(rows[first], given[first], wanted[first])


def proof_rows(forest: Forest) -> np.ndarray:
    """Return float32, shape (rows, columns): every odd value of every column, mixed by chance."""
    random = np.random.default_rng(0)
    pools = dict.fromkeys(range(forest.columns), _ODD) | _pools(forest)
    rows = min(max(_LEAST, *map(len, pools.values())), _MOST)
    return np.column_stack(
        [np.resize(random.permutation(pools[column]), rows) for column in range(forest.columns)]
    )


def _pools(forest: Forest) -> dict[int, np.ndarray]:
    pools = {}
    for feature in forest.conditions.features:
        if feature["categorical"]:
            known = np.arange(feature["count"] + 2, dtype=np.float32)
            values = [known, known + np.float32(0.5), _NO_CATEGORY]
        else:
            begin = feature["thresholds"]
            at = forest.conditions.thresholds[begin : begin + feature["count"]]
            infinity = np.float32(np.inf)
            with np.errstate(over="ignore"):  # of the largest float: infinity
                values = [at, np.nextafter(at, -infinity), np.nextafter(at, infinity)]
        pools[int(feature["column"])] = np.concatenate([_ODD, *values])
    return pools


def pays_from(forest: Forest, predict: Predict) -> int:
    """Return the number of rows from which the kernel is the faster of the two, measured here.

    Raises:
        NotCovered: if XGBoost's predictor is faster for many rows too.
    """
    rows = np.resize(proof_rows(forest), (max(_TRIED_ROWS), forest.columns))
    for count in _TRIED_ROWS:
        tried = rows[:count]
        if _seconds(forest.predict, tried) < _seconds(predict, tried):
            return count
    raise NotCovered(f"XGBoost is faster for {max(_TRIED_ROWS)} rows")


def _seconds(predict: Predict, rows: np.ndarray) -> float:
    """The shortest time of a call: what disturbs a call makes it longer, never shorter."""
    taken = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        predict(rows)
        taken.append(time.perf_counter() - begun)
    return min(taken)
