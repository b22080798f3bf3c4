"""Ensembles of bundles: which ones, and how they are put together.

A member's own training rows flatter it, so nothing of an ensemble is chosen or judged on them: the
holdout must begin after all that the members learned from, and the linear model of a stacked
ensemble is fitted on rows in between.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import SpecRefused
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from headrace.spec import EnsembleTrainer, ModelSpec
from serving.predictor import Predictor
from serving.runtimes.ensemble import EnsembleDocument, Share, log_odds
from tasks.fitters import stack
from tasks.fitters.members import check_member, load_member
from tasks.training_sets import TrainingSet

FEWEST_ROWS = 100
"""A stacked ensemble is not fitted on fewer."""
_PULL = 1.0
"""How strongly the weights are pulled towards a plain mean: as one row with values of size 1 is."""
_STEPS, _ENOUGH = 50, 1e-10


def fit(
    settings: Settings,
    spec: ModelSpec,
    trainer: EnsembleTrainer,
    *,
    training_set: TrainingSet,
    matrix: np.ndarray,
    labels: np.ndarray,
    moments: pa.ChunkedArray,
) -> bytes:
    """Return ``ensemble.json``: the members' digests and weights; or a stacked model's graph.

    Args:
        settings: where bundles and releases lie.
        spec: the ensemble.
        trainer: its members, and how to combine them.
        training_set: its plan and windows.
        matrix: inputs of the training rows, float32, shape (rows, columns).
        labels: float32, shape (rows,).
        moments: when each row was asked about, UTC.

    Raises:
        SpecRefused: if a member does not fit: another task or other inputs, or it learned from
            rows that the ensemble is judged on.
        BundleRefused: if a member's bundle is.
    """
    members = [load_member(settings, spec, member) for member in trainer.members]
    for member in members:
        check_member(spec, training_set, member)
    digests = [member.digest for member in members]
    if trainer.combine != "stack":
        if trainer.combine == "vote" and spec.task != "binary":
            said = f"trainer.combine 'vote' is for binary models, and this is a {spec.task} one"
            raise SpecRefused(spec.name, f"{said}; combine by 'mean'")
        total = sum(member.weight for member in trainer.members)
        weights = [member.weight / total for member in trainer.members]
        return _document(digests, weights, scale="vote" if trainer.combine == "vote" else "value")
    later = _later(spec, training_set, members, labels, moments)
    given = np.column_stack([_predict(m, training_set.plan, matrix[later]) for m in members])
    if trainer.by is not None:
        return stack.fit(
            settings,
            spec,
            trainer,
            training_set=training_set,
            digests=digests,
            given=given.astype(np.float32),
            matrix=matrix[later],
            labels=labels[later],
        )
    if spec.task == "binary":
        intercept, weights = stack_log_odds(given, labels[later])
        return _document(digests, weights, scale="log_odds", intercept=intercept)
    intercept, weights = stack_values(given, labels[later])
    return _document(digests, weights, intercept=intercept)


def _later(
    spec: ModelSpec,
    training_set: TrainingSet,
    members: list[Predictor],
    labels: np.ndarray,
    moments: pa.ChunkedArray,
) -> np.ndarray:
    """Which rows are later than all that the members learned from: bool, shape (rows,)."""
    learned = max(member.bundle.manifest.lineage.trained_until for member in members)
    later: np.ndarray = pc.greater_equal(moments, pa.scalar(learned)).to_numpy()
    if later.sum() < FEWEST_ROWS or (spec.task == "binary" and len(set(labels[later])) < 2):
        raise SpecRefused(
            spec.name,
            f"trainer.combine 'stack' has {later.sum()} rows between what its members learned "
            f"from, until {learned:%Y-%m-%d}, and the holdout from "
            f"{training_set.holdout.since:%Y-%m-%d}; it needs {FEWEST_ROWS}, of both outcomes: "
            "train the members with an earlier --until, or combine by 'mean'",
        )
    return later


def stack_values(given: np.ndarray, labels: np.ndarray) -> tuple[float, list[float]]:
    """Return intercept and weights of least squares, pulled towards the plain mean.

    Args:
        given: the members' predictions, float64, shape (rows, members).
        labels: shape (rows,).
    """
    design, start = _design(given)
    pull = np.eye(len(start)) * _PULL
    step = np.linalg.solve(design.T @ design + pull, design.T @ (labels - design @ start))
    return _split(start + step)


def stack_log_odds(given: np.ndarray, labels: np.ndarray) -> tuple[float, list[float]]:
    """Return intercept and weights of a logistic regression on the members' log odds.

    Newton's method; the penalty pulls towards the plain mean of log odds.

    Args:
        given: the members' probabilities, shape (rows, members).
        labels: 0 or 1, shape (rows,).
    """
    design, start = _design(log_odds(given))
    found = start.copy()
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(design @ found)))
        slope = design.T @ (chance - labels) + _PULL * (found - start)
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + _PULL * np.eye(len(start))
        step = np.linalg.solve(curve, slope)
        found -= step
        if np.abs(step).max() < _ENOUGH:
            break
    return _split(found)


def _design(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, members = given.shape
    start = np.r_[0.0, np.full(members, 1 / members)]
    return np.column_stack([np.ones(rows), given]).astype(np.float64), start


def _split(found: np.ndarray) -> tuple[float, list[float]]:
    return float(found[0]), [float(weight) for weight in found[1:]]


def _predict(member: Predictor, plan: FeaturePlan, matrix: np.ndarray) -> np.ndarray:
    places = [plan.columns.index(name) for name in member.columns]
    return member.predict(np.ascontiguousarray(matrix[:, places])).astype(np.float64)


def _document(
    digests: list[str],
    weights: list[float],
    *,
    scale: str = "value",
    intercept: float = 0.0,
) -> bytes:
    shares = [Share(digest=d, weight=w) for d, w in zip(digests, weights, strict=True)]
    document = {"scale": scale, "intercept": intercept, "members": shares}
    return EnsembleDocument.model_validate(document).model_dump_json(indent=1).encode()
