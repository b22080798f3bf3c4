"""What an explanation says: how much each input moved a row's prediction away from a base."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["tree_shap", "kernel_shap_exact", "kernel_shap_sampled"]
Scale = Literal["value", "log_odds", "log", "margin"]
"""What contributions are counted in: the prediction's own unit; the log odds of a probability; the
logarithm of a mean; or a margin of the library's that is none of these."""


@dataclass(frozen=True)
class Explanation:
    """The Shapley values of some rows: ``base + contributions.sum(axis=1)`` is ``margin``."""

    base: np.ndarray
    """What the model answers where nothing is known of a row: float64, shape (rows,), in the unit
    of ``scale``."""
    contributions: np.ndarray
    """How far each input moves it: float32, shape (rows, columns), in the unit of ``scale``."""
    margin: np.ndarray
    """What they add up to: float64, shape (rows,), in the unit of ``scale``."""
    predictions: np.ndarray
    """What the model answers: float32, shape (rows,). It is the margin where ``scale`` is
    ``value``, and ``1 / (1 + exp(-margin))`` where it is ``log_odds``."""
    scale: Scale
    method: Method
    error: np.ndarray | None = None
    """The standard error of each contribution where coalitions were sampled: float64, shape (rows,
    columns); None where nothing was."""
