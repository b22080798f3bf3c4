"""Fit and score a model without Prefect; ``tasks/training.py`` makes steps of these functions."""

import subprocess
from pathlib import Path

import numpy as np

from headrace import storage
from headrace.scorecard import Scorecard
from headrace.settings import Settings
from headrace.spec import ModelSpec, Part
from serving.runtimes.xgboost import XGBoostRuntime
from tasks.training_sets import TrainingSet, labels_of, matrix_of, part, read_training_set


class Fitted(Part):
    """Where a fitted model lies, and what it was fitted on."""

    uri: str
    training_rows: int


def fit(settings: Settings, spec: ModelSpec, training_set: TrainingSet) -> Fitted:
    """Fit the spec's trainer on the training part and write the model under its hash."""
    train = part(read_training_set(training_set.uri), spec.label, training_set.train)
    data = fit_xgboost(spec, matrix_of(train, training_set.plan.columns), labels_of(train))
    uri = settings.uri("fits", f"{storage.sha256(data)}.ubj")
    storage.write_atomic(uri, data)
    return Fitted(uri=uri, training_rows=train.num_rows)


def score_holdout(spec: ModelSpec, training_set: TrainingSet, fitted: Fitted) -> Scorecard:
    """The metrics of the holdout, overall and for each slice that a gate names."""
    from monitoring.performance import score

    holdout = part(read_training_set(training_set.uri), spec.label, training_set.holdout)
    runtime = XGBoostRuntime(storage.read_bytes(fitted.uri), threads=0)
    predictions = runtime.predict(matrix_of(holdout, training_set.plan.columns))
    gated = [gate.by for gate in spec.gates if gate.by]
    slices = {by: holdout[by].to_numpy(zero_copy_only=False) for by in gated}
    return score(spec.task, labels_of(holdout), predictions, slices=slices)


def fit_xgboost(spec: ModelSpec, matrix: np.ndarray, labels: np.ndarray) -> bytes:
    """Fit gradient-boosted trees and return the model in XGBoost's UBJSON format.

    The same rows, spec and number of threads give the same bytes.
    """
    import xgboost

    trainer = spec.trainer
    objective = "binary:logistic" if spec.task == "binary" else "reg:squarederror"
    parameters = {"objective": objective, "tree_method": "hist", "seed": 0, **trainer.parameters}
    train = xgboost.QuantileDMatrix(matrix, labels)
    booster = xgboost.train(parameters, train, num_boost_round=trainer.rounds)
    return bytes(booster.save_raw("ubj"))


def code_revision(folder: Path | None = None) -> str:
    """The commit of the working folder, marked where files differ from it; "unknown" without git.

    It is recorded, never acted on.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=10
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
