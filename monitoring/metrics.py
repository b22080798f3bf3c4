"""The metrics of holdouts and of live performance, each a plain function of two arrays.

All of them equal scikit-learn's, which the tests hold; they are written here because a resample
of blocks must not sort a million predictions again (see ``weighted_metric``).
"""

from collections.abc import Callable

import numpy as np

from headrace.spec import Metric, Task
from monitoring.errors import OneClassOnly

METRICS_OF: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier"),
    "regression": ("rmse", "mae"),
}
"""The metrics of each task, in the order in which people are shown them."""

HIGHER_IS_BETTER: frozenset[Metric] = frozenset({"roc_auc"})

WeightedMetric = Callable[[np.ndarray], float]
"""Weight of each block, shape (blocks,) -> the metric of the rows, each weighted as its block."""


def value_of(name: Metric, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return one metric.

    Args:
        name: which one.
        labels: float64, shape (rows,), at least one; 0 or 1 for a binary metric.
        predictions: float64, shape (rows,); probabilities of 1 for a binary metric.

    Raises:
        OneClassOnly: for the ROC AUC of labels that are all the same.

    >>> value_of("roc_auc", np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.2, 0.9]))
    0.75
    """
    one_block = np.zeros(labels.size, np.intp)
    return weighted_metric(name, labels, predictions, blocks=one_block)(np.ones(1))


def weighted_metric(
    name: Metric, labels: np.ndarray, predictions: np.ndarray, *, blocks: np.ndarray
) -> WeightedMetric:
    """Prepare ``name`` for many weightings of the same rows.

    Sorting, logarithms and losses are done here, once; what is returned costs a sum over blocks,
    or over pairs of them for the ROC AUC, however many rows there are.

    Args:
        name: which metric.
        labels: float64, shape (rows,).
        predictions: float64, shape (rows,).
        blocks: integers from 0, shape (rows,): the block of each row.
    """
    if name == "roc_auc":
        return _weighted_roc_auc(labels, predictions, blocks)
    losses = np.bincount(blocks, weights=_loss(name, labels, predictions))
    rows = np.bincount(blocks)
    if name == "rmse":
        return lambda weights: float(np.sqrt(weights @ losses / (weights @ rows)))
    return lambda weights: float(weights @ losses / (weights @ rows))


def _loss(name: Metric, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The loss of each row, shape (rows,)."""
    loss: np.ndarray
    if name == "mae":
        loss = np.abs(labels - predictions)
    elif name == "log_loss":
        # A probability of exactly 0 or 1 that is wrong would cost infinitely much; scikit-learn
        # moves it by one rounding step of its type, and so do we.
        step = np.finfo(np.float64).eps
        chance = np.clip(predictions, step, 1 - step)
        loss = -np.log(np.where(labels == 1, chance, 1 - chance))
    else:
        loss = np.square(labels - predictions)
    return loss


def _weighted_roc_auc(
    labels: np.ndarray, predictions: np.ndarray, blocks: np.ndarray
) -> WeightedMetric:
    """The chance that a row of class 1 is ranked above one of class 0, ties counting half.

    The wins are counted once for each pair of blocks; a weighting then costs a product of a small
    matrix, however many rows there are.

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143 (1982).
    """
    positive = labels == 1
    count = int(blocks.max()) + 1
    order = np.argsort(predictions[positive])  # sorted questions make the searches below fast
    ones, block_of_one = predictions[positive][order], blocks[positive][order]
    ones_in = np.bincount(block_of_one, minlength=count)
    zeros_in = np.bincount(blocks[~positive], minlength=count)
    wins = np.empty((count, count))  # (block of the one, block of the zero)
    for block in range(count):
        zeros = np.sort(predictions[~positive & (blocks == block)])
        sides = (np.searchsorted(zeros, ones, side) for side in ("left", "right"))
        wins[:, block] = np.bincount(block_of_one, weights=sum(sides), minlength=count) / 2

    def area(weights: np.ndarray) -> float:
        pairs = (weights @ ones_in) * (weights @ zeros_in)
        if pairs == 0:
            raise OneClassOnly("roc_auc", labels.size)
        return float(weights @ wins @ weights / pairs)

    return area
