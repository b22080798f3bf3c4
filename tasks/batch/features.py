"""From rows of an input to the model's input matrix: three ways, one answer a batch.

``direct``   every column of the model is a column of the input: copied into one float32 matrix
``offline``  features joined point-in-time from the offline store, at each row's moment
``online``   the latest values of the online store, by the same rule of age as in the server
``input``    features are columns of the input, and transforms are computed from them

Each is opened once for many shards of a worker, and asked once a batch.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from featurestore.columns import floats, microseconds
from featurestore.join.certificate import span_of
from featurestore.join.joining import ServiceJoin
from featurestore.join.object_columns import python_objects
from featurestore.join.reach import Span
from featurestore.join.training_set import read_columns, reasons_of
from featurestore.missing import Refusal, refusals
from featurestore.online.reader import OnlineReader, open_online_reader
from featurestore.vectors import input_matrix, numpy_column
from headrace.plan import NUMBERS, FeaturePlan
from headrace.settings import Settings
from serving.predictor import Predictor
from tasks.batch.job import InputColumns, Job

_ROWS_AT_ONCE = 8_192  # rows whose copies into the matrix stay in a core's cache
_ENTITIES_A_READ = 8_192
_DAY = timedelta(days=1)
_LAST_DAY = datetime(9999, 12, 30, tzinfo=UTC)


class FeatureSource(Protocol):
    """Makes the model's input of rows."""

    reads_ahead: bool
    """Whether it wants to know the span of a shard's moments before the first batch."""

    @property
    def refused(self) -> Sequence[Refusal]:
        """The rows of the last matrix that lack a feature which the plan says they must have."""

    def matrix(self, rows: pa.Table) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns), C order; NaN is missing."""

    def expect(self, span: Span | None) -> None:
        """Make ready for rows whose moments lie in a span."""

    def close(self) -> None:
        """Let go of stores and of what was read."""


class _Kept(threading.local):
    """What the last shard of a thread used: a worker may have several threads."""

    key: str = ""
    source: FeatureSource | None = None


_kept = _Kept()


def kept_features(settings: Settings, job: Job, predictor: Predictor) -> FeatureSource:
    """What a job's features come from; opened once for the shards that a thread scores."""
    key = f"{settings.storage_uri} {settings.online_uri} {job.model_dump_json()}"
    if _kept.source is None or _kept.key != key:
        if _kept.source is not None:
            _kept.source.close()
            _kept.source = None
        _kept.source, _kept.key = open_features(settings, job, predictor), key
    return _kept.source


def open_features(settings: Settings, job: Job, predictor: Predictor) -> FeatureSource:
    """Open what a job's features come from."""
    direct = direct_columns(predictor.plan, job.columns, job.features)
    if direct is not None:
        return DirectFeatures(direct)
    opened: dict[str, Callable[[], FeatureSource]] = {
        "offline": lambda: OfflineFeatures(settings.uri("offline"), predictor, job.columns),
        "online": lambda: OnlineFeatures(
            open_online_reader(settings, predictor.plan), predictor, job.columns
        ),
        "input": lambda: InputFeatures(predictor, job.columns),
    }
    return opened[job.features]()


def direct_columns(
    plan: FeaturePlan, columns: InputColumns, features: str
) -> tuple[str, ...] | None:
    """The input's column for each of the model's; None if something must be joined or computed."""
    if plan.views and (features != "input" or plan.defaults):
        return None
    have = {name: name for name in (*columns.given, *columns.taken)} | columns.features
    found = [have.get(name) for name in plan.columns]
    return None if None in found else tuple(name for name in found if name is not None)


class DirectFeatures:
    """The input's own columns, copied as they are."""

    reads_ahead = False

    refused = ()

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def matrix(self, rows: pa.Table) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns), C order; NaN is missing."""
        return float32_matrix([rows[name] for name in self._columns], rows.num_rows)

    def expect(self, span: Span | None) -> None:
        """Nothing depends on moments."""

    def close(self) -> None:
        """Nothing is held."""


class OfflineFeatures:
    """Features as they were known at each row's moment."""

    reads_ahead = True

    def __init__(self, offline_uri: str, predictor: Predictor, columns: InputColumns) -> None:
        self._uri, self._predictor, self._columns = offline_uri, predictor, columns
        self._service: ServiceJoin | None = None
        self._span: Span | None = None
        self.refused: Sequence[Refusal] = ()

    def expect(self, span: Span | None) -> None:
        """Read what rows of a span can reach, unless what was read for earlier rows holds it.

        The span is widened to whole days: shards of an unsorted input, which all have nearly the
        same one, then share what was read.
        """
        if span is None or (self._span and _lies_in(span, self._span)):
            return
        self._service = None  # freed before the next one is read
        self._span = _whole_days(span)
        plan = self._predictor.plan
        self._service = ServiceJoin.open(self._uri, plan.views, self._span, fingerprint=False)

    def matrix(self, rows: pa.Table) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns), C order; NaN is missing."""
        plan = self._predictor.plan
        moment = plan.event_timestamp
        self.expect(span_of(rows[moment]))
        joined = self._service.join(rows, moment, exact_reasons=False) if self._service else ()
        request, reads = _request(rows, self._columns), read_columns(plan, joined)
        self.refused = refusals(plan, reasons_of(plan, joined), reads)
        return self._predictor.matrix(reads, request)

    def close(self) -> None:
        """Let go of what was read."""
        self._service = self._span = None


class OnlineFeatures:
    """The latest values of each row's entities, as the server would read them at its moment."""

    reads_ahead = False

    def __init__(self, reader: OnlineReader, predictor: Predictor, columns: InputColumns) -> None:
        self._reader, self._predictor, self._columns = reader, predictor, columns
        self.refused: Sequence[Refusal] = ()

    def expect(self, span: Span | None) -> None:
        """Nothing is read ahead."""

    def matrix(self, rows: pa.Table) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns), C order; NaN is missing."""
        plan = self._predictor.plan
        moments = microseconds(rows, "rows", plan.event_timestamp)
        request = _request(rows, self._columns)
        matrix = np.empty((rows.num_rows, len(plan.columns)), np.float32)
        refused = []
        for first in range(0, rows.num_rows, _ENTITIES_A_READ):
            part = slice(first, first + _ENTITIES_A_READ)
            some = rows.slice(first, _ENTITIES_A_READ)
            keys = {key.name: some[key.name].to_pylist() for key in self._columns.join_keys}
            online = self._reader.read(keys, moments[part].view("datetime64[us]"))
            given = {name: column[part] for name, column in request.items()}
            matrix[part] = self._predictor.matrix(online.columns, given)
            for refusal in refusals(plan, online.status, online.columns):
                these = np.zeros(rows.num_rows, bool)
                these[part] = refusal.rows
                refused.append(refusal._replace(rows=these))
        self.refused = refused
        return matrix

    def close(self) -> None:
        """Let go of the store."""
        self._reader.close()


class InputFeatures:
    """Features that the input has as columns; transforms are computed from them."""

    reads_ahead = False
    refused = ()

    def __init__(self, predictor: Predictor, columns: InputColumns) -> None:
        self._plan, self._columns = predictor.plan, columns
        self._transforms = predictor.transforms

    def expect(self, span: Span | None) -> None:
        """Nothing depends on moments."""

    def matrix(self, rows: pa.Table) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns), C order; NaN is missing."""
        computed = [t for t in self._transforms if t.output not in self._columns.taken]
        pins = [p for p in self._plan.transforms if p.output not in self._columns.taken]
        plain = self._plan.model_copy(update={"transforms": tuple(pins)})
        made = input_matrix(plain, computed, self._reads(rows), _request(rows, self._columns))
        if not self._columns.taken:
            return made
        places = {name: made[:, place] for place, name in enumerate(plain.columns)}
        places |= {name: floats(rows[name]) for name in self._columns.taken}
        return np.column_stack([places[name] for name in self._plan.columns]).astype(np.float32)

    def close(self) -> None:
        """Nothing is held."""

    def _reads(self, rows: pa.Table) -> dict[str, np.ndarray]:
        features = {
            column: feature
            for view in self._plan.views
            for column, feature in zip(view.columns, view.features, strict=True)
        }
        return {
            column: floats(rows[name])
            if features[column].dtype in NUMBERS
            else python_objects(rows[name].combine_chunks(), features[column])
            for column, name in self._columns.features.items()
        }


def float32_matrix(columns: list[pa.ChunkedArray], rows: int) -> np.ndarray:
    """Return columns of numbers side by side: float32, shape (rows, columns), C order, null is NaN.

    Equal to ``input_matrix`` to the bit: whole numbers of 64 bits go through float64 there too.
    """
    numbers = [_numbers(column) for column in columns]
    matrix = np.empty((rows, len(columns)), np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and such a row is rejected
        for first in range(0, rows, _ROWS_AT_ONCE):
            block = matrix[first : first + _ROWS_AT_ONCE]
            for place, column in enumerate(numbers):
                block[:, place] = column[first : first + _ROWS_AT_ONCE]
    return matrix


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    exact = pt.is_float32(kind) or (pt.is_integer(kind) and kind.bit_width < 64)
    if not exact or column.null_count:
        return floats(column)
    if column.num_chunks == 1:
        return np.asarray(column.chunk(0))
    return np.asarray(column.to_numpy())


def _request(rows: pa.Table, columns: InputColumns) -> dict[str, np.ndarray]:
    return {name: numpy_column(rows, name, kind) for name, kind in columns.given.items()}


def _lies_in(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _whole_days(span: Span) -> Span:
    first, last = span
    return _midnight(first), max(last, min(_midnight(last), _LAST_DAY) + _DAY)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
