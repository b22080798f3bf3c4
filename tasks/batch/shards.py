"""Score one shard: read its piece batch by batch, make the model's inputs, predict, write.

Runs on a worker, which needs only the project installed: no Prefect and no Dask in here. Memory is
that of a batch and of what the offline store has in reach of the shard's moments, whatever the size
of the input. A shard that runs twice writes equal bytes under equal names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.columns import TIMESTAMP
from featurestore.join.certificate import span_of
from featurestore.join.reach import Span
from headrace.bundle import OUTPUT
from headrace.gpu import GpuUsage
from headrace.settings import Settings
from serving.predictor import Predictor
from tasks.batch import models
from tasks.batch.columns import with_utc_moments
from tasks.batch.distinct import predict_distinct
from tasks.batch.features import FeatureSource, kept_features
from tasks.batch.inputs import Piece, read_batches
from tasks.batch.job import ROW, Job
from tasks.batch.output import ShardRecord, ShardWriter, finished_shard
from tasks.batch.plan import Shard
from tasks.batch.rejected import (
    Reasons,
    RowChecks,
    infinite_inputs,
    not_finite,
    rejected_rows,
)
from tasks.batch.stamps import check_stamps

BATCH_ROWS = 65_536
"""Rows that are read, joined and scored at once; with 40 features some 60 MB at the most."""


@dataclass(frozen=True)
class Batch:
    """Rows that lie in one file, and where."""

    rows: pa.Table
    positions: np.ndarray
    """int64, shape (rows,): the position of each in its file, from 0."""
    file: str

    def split(self, reasons: Reasons) -> tuple["Batch", pa.Table | None]:
        """The rows that are not rejected, and the others as they are written, if there are any."""
        good = reasons.good
        if good is None:
            return self, None
        left = Batch(self.rows.filter(pa.array(good)), self.positions[good], self.file)
        return left, rejected_rows(self.rows, self.positions, reasons, self.file)


@dataclass(frozen=True)
class Scored:
    """What became of the rows of a batch."""

    predicted: pa.Table
    """``row``, the columns that are kept, ``prediction``."""
    rejected: pa.Table | None
    """``file``, ``row``, ``reason`` and the columns as they were read; None: no row was."""


@dataclass(frozen=True)
class Watched:
    """What became of a shard, and how busy the worker's GPU was meanwhile."""

    record: ShardRecord
    gpu_utilisation: float | None = None
    """Share of the time in which the GPU computed, in [0, 1]; None where no GPU was to be used."""


def score_watched(settings: Settings, job: Job, shard: Shard) -> Watched:
    """``score_shard`` with an eye on the GPU, if the job may use one."""
    if job.device == "cpu":
        return Watched(score_shard(settings, job, shard))
    with GpuUsage() as usage:
        record = score_shard(settings, job, shard)
    return Watched(record, usage.mean_utilisation)


def score_shard(settings: Settings, job: Job, shard: Shard) -> ShardRecord:
    """Score a shard and write it; one that is done already is left as it is.

    Raises:
        InputChanged, InputBroken: if its file is no longer what was planned, or is damaged.
        FeaturesChanged: if the tables or the store that features come from were written meanwhile.
        BundleRefused: if the bundle does not prove itself on this machine.
    """
    done = finished_shard(job.output, shard.id)
    if done:
        return done
    predictor = models.of_this_worker.get(settings.uri("bundles"), job.digest, job.device)
    check_stamps(settings, job, predictor.plan)
    source = kept_features(settings, job, predictor)
    with ShardWriter(job.output, shard.id) as writer:
        for scored in score_piece(job, shard.piece, predictor, source):
            writer.add(predicted=scored.predicted, rejected=scored.rejected)
        check_stamps(settings, job, predictor.plan)
    return writer.record


def score_piece(
    job: Job, piece: Piece, predictor: Predictor, source: FeatureSource
) -> Iterator[Scored]:
    """Score the rows of a piece, batch by batch."""
    expect(job, piece, predictor, source)
    checks = RowChecks(predictor.plan, job.columns)
    for position, rows in read_batches(piece, job.columns.read, batch_rows=BATCH_ROWS):
        batch = Batch(
            with_moments(job, rows, predictor.plan.event_timestamp),
            np.arange(position, position + rows.num_rows),
            piece.uri,
        )
        yield score_batch(job, batch, checks, predictor, source)


def expect(job: Job, piece: Piece, predictor: Predictor, source: FeatureSource) -> None:
    """Make features ready for a piece, by the span of its moments where that matters."""
    if source.reads_ahead:
        source.expect(_span(job, piece, predictor.plan.event_timestamp))


def score_batch(
    job: Job, batch: Batch, checks: RowChecks, predictor: Predictor, source: FeatureSource
) -> Scored:
    """Score the rows that can be scored, and say of the others why not."""
    batch, unfit = batch.split(checks.reasons(batch.rows))
    matrix = source.matrix(batch.rows)
    unusable = infinite_inputs(matrix, predictor.columns)
    for refusal in source.refused:
        unusable.add(refusal.rows, refusal.reason)
    matrix = matrix if unusable.good is None else matrix[unusable.good]
    batch, beyond = batch.split(unusable)
    predictions = predict_distinct(predictor.predict, matrix)
    unanswered = not_finite(predictions)
    predictions = predictions if unanswered.good is None else predictions[unanswered.good]
    batch, without = batch.split(unanswered)
    rejected = [part for part in (unfit, beyond, without) if part is not None]
    columns = {ROW: pa.array(batch.positions)}
    columns |= {name: batch.rows[name] for name in job.columns.keep}
    return Scored(
        predicted=pa.table(columns | {OUTPUT: pa.array(predictions)}),
        rejected=pa.concat_tables(rejected).sort_by(ROW) if rejected else None,
    )


def with_moments(job: Job, rows: pa.Table, name: str) -> pa.Table:
    """The rows with their moments in UTC; those of an input without moments get the job's."""
    if job.at is not None and name not in rows.column_names:
        moment = pa.scalar(job.at, TIMESTAMP)
        rows = rows.append_column(name, pa.repeat(moment, rows.num_rows))
    return with_utc_moments(rows, job.columns)


def _span(job: Job, piece: Piece, name: str) -> Span | None:
    """The first and the last moment of a piece: one pass over one column."""
    if name not in job.columns.read:
        return (job.at, job.at) if job.at else None
    spans = []
    for _, rows in read_batches(piece, [name], batch_rows=BATCH_ROWS):
        spans.append(span_of(with_utc_moments(rows.select([name]), job.columns)[name]))
    known = [span for span in spans if span]
    return (min(s for s, _ in known), max(e for _, e in known)) if known else None
