"""Models that are fitted to rows alone, whatever the trainer."""

import numpy as np

from headrace.spec import ModelSpec, SklearnTrainer, TorchTrainer, XGBoostTrainer
from headrace.trainers import FittedTrainer
from tasks.fitters import sklearn, torch, xgboost


def fit(spec: ModelSpec, trainer: FittedTrainer, matrix: np.ndarray, labels: np.ndarray) -> bytes:
    """Return the fitted model in the form of ``trainer.runtime``.

    Args:
        spec: the model, for its name and task.
        trainer: how to fit it.
        matrix: float32, shape (rows, columns); NaN is missing.
        labels: float32, shape (rows,).

    Raises:
        SpecRefused: if that cannot be done as the spec says, naming the field.
    """
    match trainer:
        case XGBoostTrainer():
            return xgboost.fit(trainer, spec.task, matrix, labels)
        case SklearnTrainer():
            return sklearn.fit(spec, trainer, matrix, labels)
        case TorchTrainer():
            return torch.fit(spec, trainer, matrix, labels)
