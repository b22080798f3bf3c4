"""What a run will take, before it starts: rows, shards, seconds from a short probe, and a price.

The probe scores some thousand rows of the input in this process, as a worker would. It also says
whether workers are worth their start: small inputs are done sooner without any.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Literal

import numpy as np
import pyarrow as pa

from headrace.errors import UsageError
from headrace.settings import Settings
from headrace.spec import Part
from serving.predictor import Predictor
from serving.runtimes.device import DeviceChoice
from tasks.batch import models
from tasks.batch.features import FeatureSource, open_features
from tasks.batch.inputs import Piece, read_batches
from tasks.batch.plan import BatchPlan, Shard
from tasks.batch.prices import Prices
from tasks.batch.rejected import RowChecks
from tasks.batch.shards import Batch, expect, score_batch, with_moments
from tasks.clusters.config import read_config
from tasks.clusters.needs import promised

PROBED_ROWS = 32_768
"""Rows of a batch of the probe: enough that its fixed costs do not hide what a row costs."""

START_SECONDS = {"here": 0.0, "local": 5.0, "address": 1.0, "cuda": 15.0, "kubernetes": 60.0}
"""From the decision to the first row, by kind of cluster: processes, pods, imports, the model.
The first three were measured, the others are a guess on the safe side."""

Where = Literal["auto", "here", "cluster"]
"""Where shards run; ``auto``: on a local cluster only if that is sooner."""


class BudgetExceeded(UsageError):
    """A run that would cost more than it may."""

    def __init__(self, price: float, budget: float, currency: str, seconds: float) -> None:
        self.price, self.budget, self.currency, self.seconds = price, budget, currency, seconds
        super().__init__(
            f"the run would cost {price:.2f} {currency} ({seconds:,.0f} worker-seconds), the "
            f"budget is {budget:.2f} {currency} (--budget). Nothing was started: raise the budget, "
            "score fewer rows, or use cheaper workers (settings/prices.toml)."
        )


class PriceUnknown(UsageError):
    """A budget for a run whose price nobody knows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            f"--budget is given, but there is no price of a worker of kind {kind!r}: write "
            f"[worker_hour] {kind} = 0.00 into settings/prices.toml (docs/batch.md)."
        )


class Probe(Part):
    """What a worker needs for this run, as measured on some rows."""

    rows: int
    """How many rows were measured."""
    open_seconds: float
    """Before the first row of the first shard: reading what its features are joined from."""
    shard_seconds: float
    """The same before each further shard, which may use what was read for the one before."""
    row_seconds: float
    """For a row: read, joined, scored."""
    rejected_share: float
    """Of the rows that were measured."""


class Estimate(Part):
    """What a run should take."""

    rows: int
    bytes: int
    shards: int
    kept_shards: int
    """Shards that an earlier run has scored already."""
    kind: str
    """Of the cluster: ``here`` is the flow's own process."""
    workers: int
    seconds: float
    """From the first shard to the last, with the start of the workers."""
    worker_seconds: float
    """What all workers are paid for together."""
    price: float | None
    """Of the worker-seconds; None: the price table does not know this kind of worker."""
    currency: str


def probe(settings: Settings, plan: BatchPlan) -> Probe:
    """Score some rows of the input as a worker would, and write nothing.

    Raises:
        BundleRefused: if the bundle does not prove itself.
        InputBroken, InputChanged, FeaturesChanged, OnlineStoreFailed: as ``score_shard``.
    """
    # The workers may have a GPU where this process has none.
    device: DeviceChoice = "cpu" if plan.job.device == "cpu" else "auto"
    predictor = models.of_this_worker.get(settings.uri("bundles"), plan.job.digest, device)
    if not plan.shards:
        return Probe(rows=0, open_seconds=0, shard_seconds=0, row_seconds=0, rejected_share=0)
    piece = plan.shards[0].piece
    source = open_features(settings, plan.job, predictor)
    try:
        opened = _opening(plan, piece, predictor, source)
        rows, rejected, seconds = _measure(plan, piece, predictor, source)
        further = _opening(plan, plan.shards[-1].piece, predictor, source)
    finally:
        source.close()
    return Probe(
        rows=rows,
        open_seconds=opened,
        shard_seconds=further,
        row_seconds=seconds / rows if rows else 0.0,
        rejected_share=rejected / rows if rows else 0.0,
    )


def estimate(
    plan: BatchPlan,
    measured: Probe,
    *,
    kept: frozenset[str],
    kind: str,
    workers: int,
    prices: Prices,
) -> Estimate:
    """What the shards that are left will take on a cluster.

    Args:
        plan: what is to be done.
        measured: on this machine; other workers may be faster or slower.
        kept: shards that are done already.
        kind: of the cluster, ``here`` for this process.
        workers: how many shards are scored at once.
        prices: of an hour of one worker, by kind.
    """
    left = [shard for shard in plan.shards if shard.id not in kept]
    at_once = max(1, min(workers, len(left)))
    further = max(len(left) - at_once, 0) * measured.shard_seconds
    work = at_once * measured.open_seconds + further + plan_rows(left) * measured.row_seconds
    seconds = (START_SECONDS.get(kind, 0.0) + work / at_once) if left else 0.0
    paid = workers * seconds
    return Estimate(
        rows=plan.rows,
        bytes=plan.bytes,
        shards=len(plan.shards),
        kept_shards=len(plan.shards) - len(left),
        kind=kind,
        workers=workers,
        seconds=seconds,
        worker_seconds=paid,
        price=prices.of(kind, paid),
        currency=prices.currency,
    )


def choose_estimate(
    settings: Settings,
    plan: BatchPlan,
    measured: Probe,
    *,
    kept: frozenset[str],
    where: Where,
    prices: Prices,
) -> Estimate:
    """The estimate for where the run will be: on the cluster, or in this process if that is sooner.

    A cluster of another kind than ``local`` was asked for by name and is always used.
    """
    config = read_config(settings)
    has = promised(config)
    on_cluster = estimate(
        plan,
        measured,
        kept=kept,
        kind=config.kind,
        workers=has.workers if has else 1,
        prices=prices,
    )
    if config.kind != "local" or where == "cluster":
        return on_cluster
    here = estimate(plan, measured, kept=kept, kind="here", workers=1, prices=prices)
    return here if where == "here" or here.seconds <= on_cluster.seconds else on_cluster


def check_budget(estimated: Estimate, budget: float | None) -> None:
    """Pass if the run may cost what it should cost.

    Raises:
        BudgetExceeded: if it would cost more.
        PriceUnknown: if there is a budget and no price.
    """
    if budget is None:
        return
    if estimated.price is None:
        raise PriceUnknown(estimated.kind)
    if estimated.price > budget:
        raise BudgetExceeded(estimated.price, budget, estimated.currency, estimated.worker_seconds)


def plan_rows(shards: Iterable[Shard]) -> int:
    """How many rows some shards have together."""
    return sum(shard.rows for shard in shards)


def _opening(plan: BatchPlan, piece: Piece, predictor: Predictor, source: FeatureSource) -> float:
    begun = time.perf_counter()
    expect(plan.job, piece, predictor, source)
    return time.perf_counter() - begun


def _measure(
    plan: BatchPlan, piece: Piece, predictor: Predictor, source: FeatureSource
) -> tuple[int, int, float]:
    """Rows, those of them that were rejected, and the seconds that they took."""
    checks = RowChecks(predictor.plan, plan.job.columns)

    def score(position: int, rows: pa.Table) -> int:
        rows = with_moments(plan.job, rows, predictor.plan.event_timestamp)
        positions = np.arange(position, position + rows.num_rows)
        batch = Batch(rows, positions, piece.uri)
        scored = score_batch(plan.job, batch, checks, predictor, source)
        return scored.rejected.num_rows if scored.rejected else 0

    batches = read_batches(piece, plan.job.columns.read, batch_rows=PROBED_ROWS)
    first = next(batches)
    score(*first)  # compiles, fills caches, opens the file: what only the first batch pays
    begun = time.perf_counter()
    timed = [(rows.num_rows, score(at, rows)) for at, rows in islice(batches, 2)]
    if not timed:
        timed = [(first[1].num_rows, score(*first))]
    seconds = time.perf_counter() - begun
    return sum(rows for rows, _ in timed), sum(bad for _, bad in timed), seconds
