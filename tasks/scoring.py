"""The steps of batch prediction: plan, score on Dask, commit.

Prefect sees three tasks; Dask sees a future a shard. A worker that dies costs the shards it was
working on, because what is done is on storage and only small records travel back.
"""

import time
from typing import Any

from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from featurestore.vectors import check_request
from headrace.settings import Settings
from headrace.spec import Part, load_spec
from headrace.storage import sha256
from headrace.window import Window
from serving.predictor import load_predictor
from tasks import commit, shards
from tasks.cluster import cluster
from tasks.commit import Manifest, ShardRecord
from tasks.shards import Input, Shard
from tasks.step import step


class BatchPlan(Part):
    """What a run will do, decided before any work starts."""

    model: str
    run: str
    digest: str
    folder: str
    source: Input
    shards: tuple[Shard, ...]
    is_committed: bool

    @property
    def rows(self) -> int:
        """How many rows go in."""
        return sum(shard.rows for shard in self.shards)


@step("plan {model} {window}")
def plan_batch(
    settings: Settings, model: str, window: Window, *, digest: str, rows_per_shard: int
) -> BatchPlan:
    """Cut the window into shards. Safe to run twice: it writes nothing.

    A bundle that does not prove itself, and rows that do not fit it, are told here, before any
    worker starts.
    """
    predictor = load_predictor(settings.uri("bundles"), digest)
    source = shards.input_of(load_spec(model), window)
    rows = shards.read_input(settings, source)
    check_request(predictor.plan, rows, source.table)
    planned = shards.plan_shards(rows, digest, rows_per_shard=rows_per_shard)
    run = sha256(" ".join([digest, *(shard.id for shard in planned)]).encode())[:16]
    folder = commit.run_folder(settings.storage_uri, model, run)
    done = commit.read_manifest(folder)
    get_run_logger().info(
        "%s rows in %s shards, run %s%s",
        rows.num_rows,
        len(planned),
        run,
        ": already committed" if done else "",
    )
    return BatchPlan(
        model=model,
        run=run,
        digest=digest,
        folder=folder,
        source=source,
        shards=planned,
        is_committed=done is not None,
    )


@step("score {plan.model} run {plan.run}")
def score_shards(settings: Settings, plan: BatchPlan) -> tuple[ShardRecord, ...]:
    """Score every shard on the Dask cluster. Safe to run twice: what is done is kept."""
    from distributed import as_completed

    progress = _Progress(plan)
    records: dict[str, ShardRecord] = {}
    with cluster(settings) as client:
        futures = [
            client.submit(
                shards.score_shard,
                settings,
                plan.source,
                shard,
                digest=plan.digest,
                folder=plan.folder,
                key=f"{plan.run}-{shard.id}",
            )
            for shard in plan.shards
        ]
        for future in as_completed(futures):
            record = future.result()
            records[record.shard] = record
            progress.add(record.rows)
    ordered = tuple(records[shard.id] for shard in plan.shards)
    _show_shards(plan, ordered)
    return ordered


@step("commit {plan.model} run {plan.run}")
def commit_batch(plan: BatchPlan, records: tuple[ShardRecord, ...]) -> Manifest:
    """Write the manifest. Safe to run twice: it is created once, and equal runs are one run."""
    manifest = commit.commit(
        plan.folder,
        run=plan.run,
        model=plan.model,
        bundle=plan.digest,
        rows=plan.rows,
        shards=records,
    )
    get_run_logger().info(
        "committed %s predictions and %s rejected rows", manifest.predicted, manifest.rejected
    )
    return manifest


def committed(plan: BatchPlan) -> Manifest:
    """The manifest of a plan that is committed."""
    manifest = commit.read_manifest(plan.folder)
    if manifest is None:
        raise commit.NotCommitted(plan.folder, "it has no manifest.json; the run did not finish")
    return manifest


class _Progress:
    """Rows done, rows a second and time left: in the log and as a Prefect progress artifact."""

    def __init__(self, plan: BatchPlan) -> None:
        self._rows, self._done, self._begun = plan.rows, 0, time.monotonic()
        self._logger = get_run_logger()
        self._artifact: Any = create_progress_artifact(
            progress=0.0,
            key=f"{plan.model.replace('_', '-')}-batch",
            description=f"{plan.rows} rows of {plan.model}, run {plan.run}",
        )

    def add(self, rows: int) -> None:
        self._done += rows
        seconds = time.monotonic() - self._begun
        rate = self._done / seconds
        share = self._done / self._rows
        update_progress_artifact(self._artifact, progress=100 * share)
        self._logger.info(
            "%s of %s rows (%.0f%%), %.0f rows/s, %.0f s left",
            self._done,
            self._rows,
            100 * share,
            rate,
            (self._rows - self._done) / rate,
        )


def _show_shards(plan: BatchPlan, records: tuple[ShardRecord, ...]) -> None:
    create_table_artifact(
        table=[
            {
                "shard": record.shard,
                "rows": record.rows,
                "predicted": record.predicted.rows,
                "rejected": record.rejected.rows if record.rejected else 0,
                "file": record.predicted.name,
            }
            for record in records
        ],
        key=f"{plan.model.replace('_', '-')}-shards",
        description=f"Shards of run {plan.run}.",
    )
