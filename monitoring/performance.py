"""How good predictions were once labels are known: overall, by slice, and against a champion.

Champion and challenger are compared on the same rows. Rows of one day share its weather and its
delays, so they are no independent evidence: the bootstrap draws whole days, not rows.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from headrace.scorecard import Comparison, Scorecard, SliceScore
from headrace.spec import Metric, Task
from monitoring.errors import OneClassOnly, RowsDiffer, TooFewBlocks, ValuesRefused
from monitoring.metrics import HIGHER_IS_BETTER, METRICS_OF, value_of, weighted_metric

MINIMUM_BLOCKS = 5
"""Fewer days say next to nothing about how days differ."""


def score(
    task: Task,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    slices: Mapping[str, np.ndarray] | None = None,
) -> Scorecard:
    """Return the metrics of a task, overall and for each value of each slice column.

    A metric that is not defined is left out: a slice whose labels are all of one class has no
    ``roc_auc``. Rows whose slice value is null belong to no slice.

    Args:
        task: what kind of model predicted.
        labels: shape (rows,): 0 or 1 for a binary task, any finite number for a regression.
        predictions: shape (rows,): probabilities of 1, or numbers.
        slices: entity key to its values, shape (rows,).

    Raises:
        RowsDiffer: if the arrays are not parallel.
        ValuesRefused: for no rows, or values that cannot be labels or predictions.
    """
    slices = slices or {}
    _check_rows(labels=labels, predictions=predictions, **slices)
    labels, predictions = _checked_values(task, labels, predictions)
    return Scorecard(
        rows=labels.size,
        metrics=_metrics(task, labels, predictions),
        slices=tuple(
            SliceScore(
                by=by,
                value=value,
                rows=rows.size,
                metrics=_metrics(task, labels[rows], predictions[rows]),
            )
            for by, values in slices.items()
            for value, rows in _groups(values)
        ),
    )


def compare_predictions(
    metric: Metric,
    labels: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    *,
    blocks: np.ndarray,
    confidence: float,
    resamples: int = 200,
    seed: int = 0,
) -> Comparison:
    """Return the gain of the challenger with a paired bootstrap interval over blocks.

    Each resample draws as many blocks as there are, with replacement, and scores both models on
    the rows of those blocks; the interval holds the middle ``confidence`` of the gains.

    Args:
        metric: what is compared.
        labels: shape (rows,).
        champion: predictions of the champion, shape (rows,).
        challenger: predictions of the challenger, shape (rows,).
        blocks: the block of each row, shape (rows,): its day.
        confidence: of the interval, between 0 and 1.
        resamples: how many draws.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        RowsDiffer: if the arrays are not parallel.
        ValuesRefused: for values that cannot be labels or predictions.
        TooFewBlocks: for fewer than ``MINIMUM_BLOCKS`` blocks.
        OneClassOnly: for the ROC AUC where a draw of blocks has labels of one class only.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8.6 (blocks)
    and 13 (percentile intervals).
    """
    _check_rows(labels=labels, champion=champion, challenger=challenger, blocks=blocks)
    task = _task_of(metric)
    truth, ours = _checked_values(task, labels, champion)
    theirs = _checked_values(task, labels, challenger)[1]
    names, place = np.unique(blocks, return_inverse=True)
    if names.size < MINIMUM_BLOCKS:
        raise TooFewBlocks(names.size, MINIMUM_BLOCKS)
    before = weighted_metric(metric, truth, ours, blocks=place)
    after = weighted_metric(metric, truth, theirs, blocks=place)
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    draws = _draws(names.size, resamples, seed)
    gains = [sign * (after(weights) - before(weights)) for weights in draws]
    once = np.ones(names.size)
    low, high = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Comparison(
        metric=metric,
        rows=truth.size,
        champion=before(once),
        challenger=after(once),
        gain=sign * (after(once) - before(once)),
        low=float(low),
        high=float(high),
        confidence=confidence,
    )


def _check_rows(**arrays: np.ndarray) -> None:
    """Raise ``RowsDiffer`` unless each array has one value a row."""
    if len({array.shape for array in arrays.values()}) > 1:
        raise RowsDiffer({name: array.size for name, array in arrays.items()})


def _checked_values(
    task: Task, labels: np.ndarray, predictions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 if they can be scored, else raise ``ValuesRefused``."""
    labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
    if not labels.size:
        raise ValuesRefused("labels", "no rows", "at least one row")
    for what, values in (("labels", labels), ("predictions", predictions)):
        if unfit := int((~np.isfinite(values)).sum()):
            expected = "a finite number in each; leave rows without one out"
            raise ValuesRefused(what, f"{unfit} missing or infinite values", expected)
    if task == "binary":
        _check_binary(labels, predictions)
    return labels, predictions


def _task_of(name: Metric) -> Task:
    """The task that a metric belongs to."""
    return next(task for task, names in METRICS_OF.items() if name in names)


def _check_binary(labels: np.ndarray, predictions: np.ndarray) -> None:
    if (other := labels[(labels != 0) & (labels != 1)]).size:
        raise ValuesRefused("labels", f"{other[0]:g}", "0 or 1 for a binary task")
    if (other := predictions[(predictions < 0) | (predictions > 1)]).size:
        raise ValuesRefused("predictions", f"{other[0]:g}", "probabilities from 0 to 1")


def _metrics(task: Task, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in METRICS_OF[task]:
        try:
            found[name] = value_of(name, labels, predictions)
        except OneClassOnly:
            continue  # not defined here: left out rather than invented
    return found


def _groups(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each value of a column, in order, with the places of its rows."""
    encoded = pa.array(values, from_pandas=True).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    names = encoded.dictionary.to_pylist()
    for code in sorted(range(len(names)), key=names.__getitem__):
        yield str(names[code]), order[ends[code] : ends[code + 1]]


def _draws(blocks: int, resamples: int, seed: int) -> np.ndarray:
    """How often each block is drawn, float64, shape (resamples, blocks)."""
    random = np.random.default_rng(seed)
    return random.multinomial(blocks, np.full(blocks, 1 / blocks), resamples).astype(np.float64)
