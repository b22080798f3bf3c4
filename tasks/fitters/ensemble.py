"""Ensembles of bundles: which ones, and how they are put together.

A member's own training rows flatter it, so nothing of an ensemble is chosen or judged on them: the
holdout must begin after all that the members learned from, and the linear model of a stacked
ensemble is fitted on rows in between.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import release
from headrace.errors import SpecRefused
from headrace.plan import FeaturePlan, ViewRead
from headrace.settings import Settings
from headrace.spec import EnsembleTrainer, Member, ModelSpec
from serving.predictor import Predictor, load_predictor
from serving.runtimes.ensemble import EnsembleDocument, Share, log_odds
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
    """Return ``ensemble.json``: the members' digests and weights.

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
    members = [_load(settings, spec, member) for member in trainer.members]
    for member in members:
        _check(spec, training_set, member)
    digests = [member.digest for member in members]
    if trainer.combine == "mean":
        total = sum(member.weight for member in trainer.members)
        weights = [member.weight / total for member in trainer.members]
        return _document(digests, weights)
    learned = max(member.bundle.manifest.lineage.trained_until for member in members)
    later = pc.greater_equal(moments, pa.scalar(learned)).to_numpy()
    if later.sum() < FEWEST_ROWS or (spec.task == "binary" and len(set(labels[later])) < 2):
        raise SpecRefused(
            spec.name,
            f"trainer.combine 'stack' has {later.sum()} rows between what its members learned "
            f"from, until {learned:%Y-%m-%d}, and the holdout from "
            f"{training_set.holdout.since:%Y-%m-%d}; it needs {FEWEST_ROWS}, of both outcomes: "
            "train the members with an earlier --until, or combine by 'mean'",
        )
    given = np.column_stack([_predict(m, training_set.plan, matrix[later]) for m in members])
    if spec.task == "binary":
        intercept, weights = stack_log_odds(given, labels[later])
        return _document(digests, weights, scale="log_odds", intercept=intercept)
    intercept, weights = stack_values(given, labels[later])
    return _document(digests, weights, intercept=intercept)


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


def _load(settings: Settings, spec: ModelSpec, member: Member) -> Predictor:
    digest = member.digest
    if member.model is not None:
        running = release.current_release(settings.storage_uri, member.model)
        if running is None:
            said = f"trainer.members names {member.model!r}, whose endpoint runs nothing"
            raise SpecRefused(spec.name, f"{said}; deploy it first, or name a digest")
        digest = running.champion
    assert digest is not None
    return load_predictor(settings.uri("bundles"), digest, threads=0)


def _check(spec: ModelSpec, training_set: TrainingSet, member: Predictor) -> None:
    manifest, plan = member.bundle.manifest, training_set.plan
    name = f"member {manifest.model} ({member.digest[:12]})"
    if manifest.task != spec.task:
        raise SpecRefused(spec.name, f"{name} is a {manifest.task} model, this one {spec.task}")
    if problem := _other_inputs(manifest.plan, plan):
        raise SpecRefused(spec.name, f"{name} {problem}")
    learned, judged = manifest.lineage.trained_until, training_set.holdout.since
    if learned > judged:
        raise SpecRefused(
            spec.name,
            f"{name} learned from rows until {learned:%Y-%m-%d %H:%M}, and the holdout begins at "
            f"{judged:%Y-%m-%d %H:%M}: its metrics would flatter. Train both with the same "
            "--until and validation.days, or the member earlier",
        )


def _other_inputs(member: FeaturePlan, plan: FeaturePlan) -> str:
    """What a member reads otherwise than the ensemble; "" if all its inputs are the ensemble's."""
    if missing := sorted(set(member.columns) - set(plan.columns)):
        return f"takes {', '.join(missing)}, which the ensemble does not read"
    known = {_reading(view) for view in plan.views}
    if other := [view.view for view in member.views if _reading(view) not in known]:
        return f"reads {', '.join(other)} otherwise than the definitions say now; train it again"
    if other := [pin.name for pin in member.transforms if pin not in plan.transforms]:
        return f"was trained with another {', '.join(other)}; train it again"
    return ""


def _reading(view: ViewRead) -> str:
    """How a view is read, whichever of its features are."""
    return view.model_copy(update={"features": ()}).model_dump_json()


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
