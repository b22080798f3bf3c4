"""The one ``infer`` under every edge: rows in, an answer out, no HTTP.

An edge takes ``endpoint.current`` once and hands the same model to validation, ``infer`` and the
response, so an answer never mixes two releases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from featurestore.freshness import ReadStatus
from featurestore.online.reader import OnlineRows
from headrace.errors import HeadraceError
from headrace.release import Release
from serving.errors import NotFinite, OnlineStoreFailing
from serving.predictor import Predictor
from serving.schema import RequestSchema, Rows

_NAMES = {status.value: status.name.lower() for status in ReadStatus}
STATUS_NAMES = tuple(_NAMES.get(code, "") for code in range(max(_NAMES) + 1))
"""The words for what became of a view's read, at the position of its code; some codes are the
join's alone and have none."""


class FeatureReader(Protocol):
    """Where feature values come from; ``featurestore.online.reader.OnlineReader`` is the real one.

    Safe to call from several threads: large requests are answered on threads of their own.
    """

    def read(self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray) -> OnlineRows:
        """Return the values known at ``at`` (datetime64[us], UTC) for each row's keys."""

    @property
    def failure(self) -> str | None:
        """Why the store failed when it was last asked; None where it answered."""

    def close(self) -> None:
        """Let go of the store."""


@dataclass(frozen=True)
class ServedModel:
    """A release with everything that answers for it; replaced as a whole, never changed."""

    release: Release
    predictor: Predictor
    reader: FeatureReader
    schema: RequestSchema

    @property
    def version(self) -> str:
        """The short form of the digest, as people and the V2 protocol name it."""
        return self.predictor.digest[:12]


@dataclass(frozen=True)
class Answer:
    """Predictions, and what they rest on."""

    model: ServedModel
    matrix: np.ndarray
    """What the model saw: float32, shape (rows, columns)."""
    predictions: np.ndarray
    """float32, shape (rows,)."""
    rows: Rows | None = None
    """The request; None where raw features were sent."""
    statuses: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What became of each view's read, as codes of ``ReadStatus``, shape (rows,)."""
    event_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    """When each view's values were true: datetime64[us], shape (rows,)."""

    @property
    def degraded(self) -> bool:
        """Whether a value is missing because the online store could not be asked."""
        return any((codes == ReadStatus.UNAVAILABLE).any() for codes in self.statuses.values())


def infer_keys(model: ServedModel, rows: Rows) -> Answer:
    """Answer rows of entity keys and request fields: read features, transform, predict.

    Raises:
        OnlineStoreFailing: if features cannot be read.
        NotFinite: if the model answers with NaN or infinity.
    """
    online = read_features(model, rows.keys, rows.at)
    matrix = model.predictor.matrix(online.columns, rows.request)
    predictions = _predict(model, matrix)
    return Answer(model, matrix, predictions, rows, online.status, online.event_times)


def read_features(
    model: ServedModel, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray
) -> OnlineRows:
    """Return the feature values of each row's entities.

    Raises:
        OnlineStoreFailing: if the store cannot give them.
    """
    try:
        return model.reader.read(keys, at)
    except HeadraceError as error:
        raise OnlineStoreFailing(error) from error


def infer_features(model: ServedModel, matrix: np.ndarray) -> Answer:
    """Answer rows of raw features: float32, shape (rows, columns), in the plan's order."""
    return Answer(model, matrix, _predict(model, matrix))


def _predict(model: ServedModel, matrix: np.ndarray) -> np.ndarray:
    predictions = model.predictor.predict(matrix)
    finite = np.isfinite(predictions)
    if not finite.all():
        row = int(np.argmin(finite))
        raise NotFinite(model.predictor.digest, row, float(predictions[row]))
    return predictions
