"""Training sets: labels joined with features as they were known, kept in files named by their hash.

No Prefect in here; ``tasks/training.py`` makes steps of these functions.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from featurestore.catalog.catalog import load_catalog
from featurestore.catalog.planning import plan_for
from featurestore.columns import check_timestamps
from featurestore.join.certificate import SUFFIX
from featurestore.join.training_set import JoinedRows, join_features
from featurestore.offline.tables import read_table, table_span
from featurestore.vectors import check_request
from headrace import storage
from headrace.errors import DatesOutsideData, SchemaMismatch, SpecRefused
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from headrace.spec import LabelSource, ModelSpec, Part
from headrace.window import Window

LABEL = "label"
"""The training set's label column; the others are the entity keys, both timestamps, and the model's
input columns."""


class TrainingSet(Part):
    """Where a training set lies and what is in it."""

    uri: str
    sha256: str
    rows: int
    train: Window
    holdout: Window
    plan: FeaturePlan
    null_reasons: dict[str, dict[str, int]]
    """For each view, how many values are present and why the others are not."""
    certificate_uri: str
    """What it was made of: ``featurestore.join.certificate.Certificate``."""
    certificate_sha256: str
    left_out: dict[str, int] = Field(default_factory=dict)
    """How many rows the plan's policies leave out, by reason."""


class NoSuchHoldout(SpecRefused):
    """A window too short to hold training rows before its holdout."""

    def __init__(self, spec: ModelSpec, window: Window) -> None:
        super().__init__(
            spec.name,
            f"the window {window} leaves no rows to train on before a holdout of "
            f"{spec.validation.days} days; choose a longer window or a shorter holdout",
        )


def make_training_set(
    settings: Settings, spec: ModelSpec, *, since: datetime | None, until: datetime | None
) -> TrainingSet:
    """Join labels and features point in time and write the result under its hash.

    Args:
        settings: where the tables are.
        spec: the model.
        since: first moment of labels; None for the earliest there is.
        until: the day as of which to train and test; None for all there is.
    """
    window = _label_window(settings, spec, since, until)
    split = _split_at(spec, window)
    table, joined, left_out = _join(settings, spec, window)
    certificate = joined.certificate(table).to_bytes()
    uri, digest = _write(settings.storage_uri, _parquet(table), ".parquet")
    certificate_uri, certificate_digest = _write(settings.storage_uri, certificate, SUFFIX)
    return TrainingSet(
        uri=uri,
        sha256=digest,
        rows=table.num_rows,
        train=Window(since=window.since, until=split),
        holdout=Window(since=split, until=window.until),
        plan=joined.plan,
        null_reasons=joined.reasons,
        certificate_uri=certificate_uri,
        certificate_sha256=certificate_digest,
        left_out=left_out,
    )


def read_training_set(uri: str) -> pa.Table:
    """Return a training set after checking that it is what its name says.

    Raises:
        SchemaMismatch: if its bytes have changed.
    """
    data = storage.read_bytes(uri)
    if storage.sha256(data) != Path(uri).stem:
        raise SchemaMismatch(uri, ["its bytes are not those it was named after; train again"])
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


def part(table: pa.Table, label: LabelSource, window: Window) -> pa.Table:
    """The rows of ``window`` whose outcome was known when it ended.

    Nobody who trains at the end of a window can have learned from what came out later.
    """
    moments, known = table[label.event_timestamp], table[label.created_timestamp]
    since, until = pa.scalar(window.since), pa.scalar(window.until)
    inside = pc.and_(pc.greater_equal(moments, since), pc.less(moments, until))
    return table.filter(pc.and_(inside, pc.less_equal(known, until)))


def matrix_of(table: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """The model's inputs, float32, shape (rows, columns)."""
    matrix = np.empty((table.num_rows, len(columns)), np.float32)
    for position, name in enumerate(columns):
        matrix[:, position] = table[name].to_numpy()
    return matrix


def labels_of(table: pa.Table) -> np.ndarray:
    """The labels, float32, shape (rows,)."""
    return np.asarray(table[LABEL].to_numpy())


def _label_window(
    settings: Settings, spec: ModelSpec, since: datetime | None, until: datetime | None
) -> Window:
    label = spec.label
    first, last = table_span(settings.uri("offline"), label.table, label.event_timestamp)
    begin, end = since or first, until or last + timedelta(microseconds=1)
    if begin > last or end <= first or end > last + timedelta(days=1):
        raise DatesOutsideData(label.table, begin, end, first, last)
    return Window(since=begin, until=end)


def _split_at(spec: ModelSpec, window: Window) -> datetime:
    at = window.until - timedelta(days=spec.validation.days)
    if at <= window.since:
        raise NoSuchHoldout(spec, window)
    return at


def _join(
    settings: Settings, spec: ModelSpec, window: Window
) -> tuple[pa.Table, JoinedRows, dict[str, int]]:
    # Sorted by event timestamp, as the label table is.
    plan = plan_for(load_catalog(settings), spec)
    rows = _labelled_rows(settings, spec, window)
    check_request(plan, rows, spec.label.table)
    joined = join_features(rows, plan, settings.uri("offline"))
    left_out = {refusal.reason: int(refusal.rows.sum()) for refusal in joined.refused}
    if left_out:  # joined anew without them, so that the certificate is of the rows that stay
        refused = np.logical_or.reduce([refusal.rows for refusal in joined.refused])
        rows = rows.filter(pa.array(~refused))
        joined = join_features(rows, plan, settings.uri("offline"))
    label = spec.label
    kept = [*label.entity_keys, label.event_timestamp, label.created_timestamp]
    table = rows.select(list(dict.fromkeys(kept)))
    for position, name in enumerate(plan.columns):
        table = table.append_column(name, pa.array(joined.matrix[:, position]))
    outcome = pc.cast(rows[label.column], pa.float32())
    return table.append_column(LABEL, outcome), joined, left_out


def _labelled_rows(settings: Settings, spec: ModelSpec, window: Window) -> pa.Table:
    """The label rows of a window whose outcome was known when it ended, in order of time."""
    label = spec.label
    request = [field.name for field in spec.request]
    columns = [*label.entity_keys, *request, label.created_timestamp, label.column]
    rows = read_table(
        settings.uri("offline"),
        label.table,
        columns=list(dict.fromkeys([label.event_timestamp, *columns])),
        timestamp=label.event_timestamp,
        since=window.since,
        until=window.until,
    )
    check_timestamps(label.table, rows.schema, [label.created_timestamp])
    _check_label(spec, rows)
    return part(rows, label, window)


def _check_label(spec: ModelSpec, rows: pa.Table) -> None:
    column = rows[spec.label.column]
    name = f"label table {spec.label.table!r}"
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not (numeric or pa.types.is_boolean(column.type)):
        raise SchemaMismatch(name, [f"label {spec.label.column!r} is {column.type}, not a number"])
    if column.null_count:
        raise SchemaMismatch(
            name, [f"label {spec.label.column!r} is null in {column.null_count} rows; drop them"]
        )
    if spec.task == "binary":
        values = set(pc.unique(pc.cast(column, pa.float64())).to_pylist())
        if not values <= {0.0, 1.0}:
            shown = sorted(values)[:5]
            raise SchemaMismatch(
                name, [f"label {spec.label.column!r} must be 0 or 1; it has {shown}"]
            )
        if len(values) < 2:
            raise SchemaMismatch(
                name,
                [f"label {spec.label.column!r} is {values.pop():g} in every row; widen the window"],
            )


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=65_536, write_page_checksum=True)
    return bytes(sink.getvalue())


def _write(root: str, data: bytes, suffix: str) -> tuple[str, str]:
    digest = storage.sha256(data)
    uri = f"{root}/training_sets/{digest}{suffix}"
    if not storage.exists(uri):
        storage.write_atomic(uri, data)
    return uri, digest
