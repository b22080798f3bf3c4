"""TreeSHAP: the exact Shapley values of a forest, as XGBoost computes them.

The value of a coalition is what the trees expect where the other columns are unknown: both ways of
a split, weighted by the training rows that went there (Lundberg et al., "From local explanations to
global understanding with explainable AI for trees", Nature Machine Intelligence, 2020). So no
background is needed.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from serving.explanations.explanation import Explanation, Scale


@runtime_checkable
class Trees(Protocol):
    """A runtime whose library computes the contributions of its columns."""

    scale: Scale
    """What contributions are counted in."""

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Return float32, shape (rows, columns + 1); the last column is the base."""

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row: float32, shape (rows,)."""


def tree_shap(trees: Trees, matrix: np.ndarray) -> Explanation:
    """Explain the prediction of each row of ``matrix``: float32, shape (rows, columns)."""
    given = trees.contributions(matrix)
    contributions, base = given[:, :-1], given[:, -1].astype(np.float64)
    return Explanation(
        base=base,
        contributions=contributions,
        margin=base + contributions.sum(axis=1, dtype=np.float64),
        predictions=trees.predict(matrix),
        scale=trees.scale,
        method="tree_shap",
    )
