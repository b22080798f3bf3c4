"""Ensembles: the predictions of other bundles: averaged, voting, or in a linear model.

The model is a small document, ``ensemble.json``, that names its members by digest: each is a
bundle of its own, verified and proved on its golden rows like any other. Sums are in float64 and
in the members' order, so the answer for a row has the same bits in any batch.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from headrace.mapped import Data
from headrace.part import Part
from serving.errors import RuntimeFailed
from serving.runtimes.device import Device
from serving.runtimes.runtime import Member

LIBRARY = "the ensemble"
_NEAREST = 2.0**-24
"""How near to 0 or 1 a probability counts: half of float32's step below 1. Log odds stay finite."""

_YES = np.float32(0.5)
"""The probability from which a member says yes."""


class Share(Part):
    """One member and its weight in the sum."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    weight: FiniteFloat


class EnsembleDocument(Part):
    """What ``ensemble.json`` says."""

    format: Literal["headrace-ensemble-1"] = "headrace-ensemble-1"
    scale: Literal["value", "log_odds", "vote"] = "value"
    """What is summed: the members' predictions, their log odds, or 1 for each that says yes (a
    probability of at least one half) and 0 for each that says no."""
    intercept: FiniteFloat = 0.0
    members: Annotated[tuple[Share, ...], Field(min_length=1)]


class EnsembleRuntime:
    """One loaded ensemble. Safe to call from several threads."""

    def __init__(
        self, model: Data, *, columns: Sequence[str], member: Callable[[str], Member]
    ) -> None:
        """Load an ensemble and its members.

        Args:
            model: an ``EnsembleDocument`` as JSON.
            columns: the names of the inputs, in order; those of the members are among them.
            member: loads the bundle of a digest.

        Raises:
            RuntimeFailed: if the document is of another format, or a member takes other inputs.
            BundleRefused: if a member is.
        """
        try:
            self._document = EnsembleDocument.model_validate_json(bytes(model))
        except ValidationError as error:
            raise RuntimeFailed(
                "load the model", f"it is of another format: {error}", library=LIBRARY
            ) from error
        self.columns = len(columns)
        self._members = [member(share.digest) for share in self._document.members]
        self._places = [_places(columns, part) for part in self._members]
        on_gpu = any(part.device == "cuda" for part in self._members)
        self.device: Device = "cuda" if on_gpu else "cpu"

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row; see ``Runtime.predict``."""
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            wanted = f"shape {matrix.shape} is not (rows, {self.columns})"
            raise RuntimeFailed("predict", wanted, library=LIBRARY)
        given = [
            part.predict(np.ascontiguousarray(matrix[:, places], np.float32))
            for part, places in zip(self._members, self._places, strict=True)
        ]
        return combine(self._document, given)

    def close(self) -> None:
        """Free the members; safe to call twice."""
        for part in self._members:
            part.close()


def combine(document: EnsembleDocument, given: Sequence[np.ndarray]) -> np.ndarray:
    """Return the ensemble's predictions from its members': float32, shape (rows,).

    Args:
        document: weights, intercept and scale.
        given: each member's predictions, float32, shape (rows,), in the members' order.
    """
    total = np.full(len(given[0]), document.intercept, np.float64)
    for share, values in zip(document.members, given, strict=True):
        total += share.weight * _SCALES[document.scale](values)
    if document.scale == "log_odds":
        total = 1.0 / (1.0 + np.exp(-total))
    return total.astype(np.float32)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return ``ln(p / (1 - p))``, float64, finite for 0 and 1 too.

    >>> log_odds(np.array([0.5, 1.0], np.float32)).round(2).tolist()
    [0.0, 16.64]
    """
    inside = np.clip(np.asarray(probabilities, np.float64), _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def votes(probabilities: np.ndarray) -> np.ndarray:
    """Return 1.0 where a member says yes, 0.0 where it says no; NaN stays NaN.

    >>> votes(np.array([0.2, 0.5, 0.9], np.float32)).tolist()
    [0.0, 1.0, 1.0]
    """
    said = (probabilities >= _YES).astype(np.float64)
    return np.where(np.isnan(probabilities), np.nan, said)


_SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "value": lambda values: values.astype(np.float64),
    "log_odds": log_odds,
    "vote": votes,
}


def _places(columns: Sequence[str], member: Member) -> list[int]:
    if missing := sorted(set(member.columns) - set(columns)):
        said = f"a member takes {', '.join(missing)}, which the ensemble does not read"
        raise RuntimeFailed("load the model", said, library=LIBRARY)
    return [list(columns).index(name) for name in member.columns]
