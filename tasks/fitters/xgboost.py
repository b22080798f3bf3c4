"""Gradient-boosted trees, as UBJSON."""

import numpy as np

from headrace.spec import Task, XGBoostTrainer


def fit(trainer: XGBoostTrainer, task: Task, matrix: np.ndarray, labels: np.ndarray) -> bytes:
    """Fit gradient-boosted trees and return the model in XGBoost's UBJSON format.

    The same rows, trainer and number of threads give the same bytes.

    Args:
        trainer: rounds and parameters.
        task: gives the objective, unless the parameters have one.
        matrix: float32, shape (rows, columns); NaN is missing.
        labels: float32, shape (rows,).
    """
    import xgboost

    objective = "binary:logistic" if task == "binary" else "reg:squarederror"
    parameters = {"objective": objective, "tree_method": "hist", "seed": 0, **trainer.parameters}
    train = xgboost.QuantileDMatrix(matrix, labels)
    booster = xgboost.train(parameters, train, num_boost_round=trainer.rounds)
    return bytes(booster.save_raw("ubj"))
