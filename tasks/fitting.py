"""Fit and score a model without Prefect; ``tasks/training.py`` makes steps of these functions."""

import subprocess
from pathlib import Path

from headrace import storage
from headrace.bundle import model_file
from headrace.errors import SpecRefused
from headrace.mapped import read_data
from headrace.scorecard import Scorecard
from headrace.settings import Settings
from headrace.spec import (
    EnsembleTrainer,
    GraphTrainer,
    ModelSpec,
    OnnxModel,
    Part,
    SklearnTrainer,
    TorchTrainer,
    XGBoostTrainer,
)
from headrace.trainers import RuntimeName
from serving.errors import RuntimeFailed
from serving.predictor import load_predictor
from serving.runtimes.memory import FittingBatches
from serving.runtimes.runtime import Opening, Runtime, open_runtime
from tasks.fitters import alone, ensemble, graph, onnx
from tasks.training_sets import TrainingSet, labels_of, matrix_of, part, read_training_set


class Fitted(Part):
    """Where a fitted model lies, and what it was fitted on."""

    uri: str
    training_rows: int
    runtime: RuntimeName
    bundles_root: str
    """Where the members of an ensemble lie."""


def fit(settings: Settings, spec: ModelSpec, training_set: TrainingSet) -> Fitted:
    """Fit the spec's trainer on the training part and write the model under its hash.

    Raises:
        SpecRefused: if that cannot be done as the spec says, naming the field.
    """
    train = part(read_training_set(training_set.uri), spec.label, training_set.train)
    matrix, labels = matrix_of(train, training_set.plan.columns), labels_of(train)
    match spec.trainer:
        case XGBoostTrainer() | SklearnTrainer() | TorchTrainer() as trainer:
            data = alone.fit(spec, trainer, matrix, labels)
        case OnnxModel() as trainer:
            data = onnx.fit(spec, trainer, matrix)
        case EnsembleTrainer() as trainer:
            data = ensemble.fit(
                settings,
                spec,
                trainer,
                training_set=training_set,
                matrix=matrix,
                labels=labels,
                moments=train[spec.label.event_timestamp],
            )
        case GraphTrainer() as trainer:
            data = graph.fit(settings, spec, trainer, training_set=training_set, matrix=matrix)
    runtime = spec.trainer.runtime
    uri = settings.uri("fits", storage.sha256(data) + Path(model_file(runtime)).suffix)
    storage.write_atomic(uri, data)
    return Fitted(
        uri=uri,
        training_rows=train.num_rows,
        runtime=runtime,
        bundles_root=settings.uri("bundles"),
    )


def open_fitted(spec: ModelSpec, training_set: TrainingSet, fitted: Fitted) -> Runtime:
    """Return the runtime of a model that has no bundle yet, on all cores.

    Raises:
        SpecRefused: if its runtime does not take it.
    """
    opening = Opening(
        columns=training_set.plan.columns,
        member=lambda digest: load_predictor(fitted.bundles_root, digest, threads=0),
        threads=0,
    )
    try:
        return open_runtime(fitted.runtime, read_data(fitted.uri)[0], opening)
    except RuntimeFailed as error:
        raise SpecRefused(spec.name, f"trainer {spec.trainer.kind}: {error}") from error


def score_holdout(spec: ModelSpec, training_set: TrainingSet, fitted: Fitted) -> Scorecard:
    """The metrics of the holdout, overall and for each slice that a gate names."""
    from monitoring.performance import score

    holdout = part(read_training_set(training_set.uri), spec.label, training_set.holdout)
    runtime = open_fitted(spec, training_set, fitted)
    predictions = FittingBatches(runtime).predict(matrix_of(holdout, training_set.plan.columns))
    runtime.close()
    gated = [gate.by for gate in spec.gates if gate.by]
    slices = {by: holdout[by].to_numpy(zero_copy_only=False) for by in gated}
    return score(spec.task, labels_of(holdout), predictions, slices=slices)


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
