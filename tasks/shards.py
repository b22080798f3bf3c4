"""One shard of a batch: read its rows, join features, score, write. Runs on a Dask worker.

No Prefect and no Dask in here; a worker needs only the project installed.
"""

import functools
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.join.training_set import feature_matrix
from featurestore.offline.tables import read_table
from headrace.bundle import OUTPUT, arrow_bytes
from headrace.errors import HeadraceError
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from headrace.spec import ModelSpec, Part
from headrace.storage import sha256
from headrace.window import Window
from serving.predictor import Predictor, load_predictor
from tasks.commit import ShardRecord, finished_shard, write_shard

ROWS_PER_SHARD = 8_192


class InputChanged(HeadraceError):
    """Rows that are no longer those the run was planned with."""

    def __init__(self, table: str, window: Window, first_row: int) -> None:
        self.table, self.window, self.first_row = table, window, first_row
        super().__init__(
            f"{table} {window} changed while it was being scored (from row {first_row}); "
            "run the command again once it stands still."
        )


class Input(Part):
    """The rows to score: a window of a table, and the columns that are needed of it."""

    table: str
    window: Window
    event_timestamp: str
    columns: tuple[str, ...]


class Shard(Part):
    """A range of an input's rows, named by what they are and what scores them."""

    id: str
    first_row: int
    rows: int
    rows_sha256: str


def input_of(spec: ModelSpec, window: Window) -> Input:
    """The rows of the spec's scoring table that a window holds."""
    request = [field.name for field in spec.request]
    columns = [spec.label.event_timestamp, *spec.label.entity_keys, *request]
    return Input(
        table=spec.scoring_table,
        window=window,
        event_timestamp=spec.label.event_timestamp,
        columns=tuple(dict.fromkeys(columns)),
    )


def read_input(settings: Settings, source: Input) -> pa.Table:
    """The input's rows in the table's own order."""
    return read_table(
        settings.uri("offline"),
        source.table,
        columns=list(source.columns),
        timestamp=source.event_timestamp,
        since=source.window.since,
        until=source.window.until,
    )


def plan_shards(rows: pa.Table, digest: str, *, rows_per_shard: int) -> tuple[Shard, ...]:
    """Cut rows into shards. The same rows, bundle and size give the same ids."""
    shards = []
    for first in range(0, rows.num_rows, rows_per_shard):
        piece = rows.slice(first, rows_per_shard)
        content = sha256(arrow_bytes(piece))
        name = hashlib.sha256(f"{digest} {first} {content}".encode()).hexdigest()[:16]
        shards.append(Shard(id=name, first_row=first, rows=piece.num_rows, rows_sha256=content))
    return tuple(shards)


def score_shard(
    settings: Settings, source: Input, shard: Shard, *, digest: str, folder: str
) -> ShardRecord:
    """Score one shard and write it; a shard that is done already is left as it is."""
    done = finished_shard(folder, shard.id)
    if done:
        return done
    rows = read_input(settings, source).slice(shard.first_row, shard.rows)
    if sha256(arrow_bytes(rows)) != shard.rows_sha256:
        raise InputChanged(source.table, source.window, shard.first_row)
    predictor = _predictor(settings.uri("bundles"), digest)
    good, rejected = split_rows(rows, predictor.bundle.manifest.plan, shard.first_row)
    predicted = score_rows(settings, good, predictor)
    return write_shard(folder, shard.id, predicted=predicted, rejected=rejected)


def score_rows(settings: Settings, rows: pa.Table, predictor: Predictor) -> pa.Table:
    """The rows with a ``prediction`` column."""
    predictions = predictor.predict(join(settings, rows, predictor))
    return rows.append_column(OUTPUT, pa.array(predictions, pa.float32()))


def join(settings: Settings, rows: pa.Table, predictor: Predictor) -> np.ndarray:
    """The model's inputs as they were known at each row's moment, float32 (rows, columns)."""
    bundle = predictor.bundle
    return feature_matrix(rows, bundle.manifest.plan, settings.uri("offline"), digest=bundle.digest)


def split_rows(rows: pa.Table, plan: FeaturePlan, first_row: int) -> tuple[pa.Table, pa.Table]:
    """Part the rows that can be scored from those that cannot.

    Returns:
        The good rows, and the others with their ``row`` in the input and the ``reason``.
    """
    reasons = np.full(rows.num_rows, "", dtype=object)
    for field in plan.request:
        column = rows[field.name]
        _reject(reasons, pc.is_null(column, nan_is_null=True), f"{field.name} is null")
        if field.at_least is not None:
            low = pc.less(column, field.at_least)
            _reject(reasons, low, f"{field.name} is below {field.at_least:g}")
        if field.at_most is not None:
            high = pc.greater(column, field.at_most)
            _reject(reasons, high, f"{field.name} is above {field.at_most:g}")
    bad = reasons != ""
    positions = np.arange(first_row, first_row + rows.num_rows)
    rejected = rows.append_column("row", pa.array(positions)).append_column(
        "reason", pa.array(reasons, pa.string())
    )
    return rows.filter(pa.array(~bad)), rejected.filter(pa.array(bad))


def _reject(reasons: np.ndarray, where: pa.ChunkedArray, reason: str) -> None:
    hit = where.fill_null(False).to_numpy()
    reasons[hit & (reasons == "")] = reason


@functools.lru_cache(maxsize=2)
def _predictor(root: str, digest: str) -> Predictor:
    # Loaded and proved on its golden rows once a worker.
    return load_predictor(root, digest)
