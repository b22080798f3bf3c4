"""The steps of batch prediction: plan, estimate, score, commit. Prefect sees a task each.

Scoring is one task that hands a call a shard to the cluster. What is done is on storage and only
small records travel, so a dead worker costs the shards it was working on, and a flow that is
started again goes on where it stopped.
"""

import time
from collections.abc import Iterator
from typing import Any

from prefect.logging import get_run_logger

from headrace.settings import Settings
from headrace.spec import Part
from tasks.batch import commit as commits
from tasks.batch.commit import Manifest
from tasks.batch.estimate import Estimate, Probe, Where, check_budget, choose_estimate, probe
from tasks.batch.lease import Lease, held
from tasks.batch.limits import RejectedLimit, RejectedRows, top_reasons
from tasks.batch.output import ShardRecord, recorded_shards
from tasks.batch.plan import BatchPlan, Options, Source, make_plan
from tasks.batch.prices import read_prices
from tasks.batch.progress import Progress
from tasks.batch.shards import Watched, score_watched
from tasks.clusters import Call, Compute, Needs, Priority, cluster
from tasks.step import step

WORKER_MEMORY = 640 << 20
"""Bytes that a worker needs: it stays under 600 MB whatever the size of the input."""


class Actual(Part):
    """What a run took."""

    kind: str
    workers: int
    seconds: float
    """From the start of the workers to the last shard."""
    rows_per_second: float
    """Of the rows that this run scored itself."""
    scored_rows: int
    kept_rows: int
    """In shards that an earlier run had scored."""
    price: float | None
    currency: str
    gpu_utilisation: float | None = None
    """Mean share of the time in which the workers' GPUs computed, in [0, 1]; None without GPUs."""


class Work(Part):
    """What the shards of a plan became."""

    records: tuple[ShardRecord, ...]
    """In the order of the input."""
    actual: Actual


@step("plan {source}")
def plan_batch(
    settings: Settings, source: Source, options: Options, *, digest: str, output: str | None = None
) -> BatchPlan:
    """Find the input, check that it fits the bundle, cut it. Safe to run twice: it writes nothing.

    What cannot be scored at all is told here, before any worker starts.
    """
    plan = make_plan(settings, source, options, digest=digest, output=output)
    logger = get_run_logger()
    logger.info(
        "%s rows of %s in %s shards, run %s, into %s",
        f"{plan.rows:,}",
        plan.source,
        f"{len(plan.shards):,}",
        plan.run,
        plan.job.output,
    )
    for uri, reason in plan.quarantined.items():
        logger.warning("left out: %s: %s", uri, reason)
    if plan.unplaced:
        logger.warning("%s rows of the table have no moment: no window has them", plan.unplaced)
    return plan


@step("estimate {plan.source}")
def estimate_batch(
    settings: Settings,
    plan: BatchPlan,
    *,
    where: Where = "auto",
    budget: float | None = None,
) -> Estimate:
    """Score a sample in this process and say what the run will take. It writes nothing.

    Raises:
        BudgetExceeded, PriceUnknown: if the run may not be started.
    """
    prices = read_prices()
    measured = probe(settings, plan)
    estimated = choose_estimate(
        settings,
        plan,
        measured,
        kept=recorded_shards(plan.job.output),
        where=where,
        prices=prices,
    )
    get_run_logger().info("%s", told(estimated, measured))
    check_budget(estimated, budget)
    return estimated


@step("score {plan.source} run {plan.run}")
def score_batch(
    settings: Settings,
    plan: BatchPlan,
    lease: Lease,
    *,
    estimated: Estimate,
    max_rejected: RejectedLimit | None = None,
    priority: Priority = "normal",
) -> Work:
    """Score every shard that is not done yet. Safe to run twice: what is done is kept.

    If a shard fails for good, those under way are finished and recorded, so that the next run is
    cheap; then its error is raised.
    """
    needs = Needs(gpu=plan.job.device == "cuda", memory=WORKER_MEMORY)
    recorded = recorded_shards(plan.job.output)
    begun = time.monotonic()
    with (
        cluster(
            settings, needs=needs, small=estimated.kind == "here" or not plan.shards
        ) as compute,
        Progress(plan, get_run_logger(), recorded=recorded) as progress,
    ):
        scored = list(
            _score(
                settings,
                plan,
                compute,
                lease=lease,
                progress=progress,
                rejected=RejectedRows(plan.job.output, rows=plan.rows, limit=max_rejected),
                priority=priority,
            )
        )
        kind, workers = compute.kind, compute.slots
    seconds = time.monotonic() - begun
    records = {one.record.shard: one.record for one in scored}
    busy = [one.gpu_utilisation for one in scored if one.gpu_utilisation is not None]
    kept = sum(record.rows for record in records.values() if record.shard in recorded)
    return Work(
        records=tuple(records[shard.id] for shard in plan.shards),
        actual=Actual(
            kind=kind,
            workers=workers,
            seconds=seconds,
            rows_per_second=(plan.rows - kept) / seconds if seconds else 0.0,
            scored_rows=plan.rows - kept,
            kept_rows=kept,
            price=read_prices().of(kind, workers * seconds),
            currency=estimated.currency,
            gpu_utilisation=sum(busy) / len(busy) if busy else None,
        ),
    )


@step("commit {plan.source} run {plan.run}")
def commit_batch(
    plan: BatchPlan, lease: Lease, work: Work, *, estimated: Estimate | None = None
) -> Manifest:
    """Write the manifest. Safe to run twice: a run that is committed is left as it is."""
    # `row` counts within a file; here is which one each shard is of.
    inputs = {s.id: {"file": s.piece.uri, "first_row": s.piece.first_row} for s in plan.shards}
    facts: dict[str, Any] = {"inputs": inputs, "actual": work.actual.model_dump(mode="json")}
    if estimated is not None:
        facts["estimate"] = estimated.model_dump(mode="json")
    manifest = commits.commit(
        plan.job.output,
        lease=lease,
        run=plan.run,
        model=plan.model,
        bundle=plan.job.digest,
        input=plan.source,
        rows=plan.rows,
        shards=work.records,
        quarantined=plan.quarantined,
        facts=facts,
    )
    get_run_logger().info(
        "committed revision %s: %s predictions and %s rejected rows",
        manifest.revision,
        f"{manifest.predicted:,}",
        f"{manifest.rejected:,}",
    )
    return manifest


@step("deliver {plan.source} run {plan.run}")
def deliver_batch(plan: BatchPlan, manifest: Manifest, *, to: str) -> str:
    """Copy committed predictions into another store. Safe to run twice: once a run."""
    from tasks.batch.deliver import deliver  # brings the libraries of the stores

    delivery = deliver(manifest, plan.job.output, to)
    done = " (was done already)" if delivery.was_done else ""
    told = f"{delivery.rows:,} rows in {delivery.to}{done}"
    get_run_logger().info("delivered %s", told)
    return told


def checked_target(to: str) -> str:
    """``to`` as it is, if it is something that predictions can be delivered to.

    Raises:
        DeliveryRefused: if it is not, or holds a password.
    """
    from tasks.batch.deliver import parse_target

    parse_target(to)
    return to


def score_and_commit(
    settings: Settings,
    plan: BatchPlan,
    *,
    estimated: Estimate,
    max_rejected: RejectedLimit | None = None,
    priority: Priority = "normal",
) -> tuple[Manifest, Actual | None]:
    """Score and commit a plan under the lease of its output; a run that holds it is waited for.

    Returns:
        The manifest, and what scoring took; None if the run that was waited for has done the work.
    """
    owner = f"run {plan.run} of {plan.source}"
    say, seconds = get_run_logger().info, settings.lease_seconds
    with held(plan.job.output, owner=owner, seconds=seconds, say=say) as lease:
        if found := committed(plan):
            return found, None
        work = score_batch(
            settings,
            plan,
            lease,
            estimated=estimated,
            max_rejected=max_rejected,
            priority=priority,
        )
        return commit_batch(plan, lease, work, estimated=estimated), work.actual


def committed(plan: BatchPlan) -> Manifest | None:
    """The newest manifest of the plan's output if it is of this run, else None."""
    return commits.is_committed(plan.job.output, plan.run)


def reasons(plan: BatchPlan, manifest: Manifest) -> dict[str, int]:
    """Why rows of a committed run were rejected: the commonest reasons and their counts."""
    return dict(top_reasons(plan.job.output, manifest.files(rejected=True)))


def told(estimated: Estimate, measured: Probe) -> str:
    """An estimate as a line of the log."""
    where = (
        "in this process"
        if estimated.kind == "here"
        else f"on {estimated.workers} workers ({estimated.kind})"
    )
    price = "" if not estimated.price else f", {estimated.price:.2f} {estimated.currency}"
    kept = f", {estimated.kept_shards:,} of them done before" if estimated.kept_shards else ""
    return (
        f"estimate: {estimated.rows:,} rows, {estimated.bytes / 1e6:,.1f} MB, "
        f"{estimated.shards:,} shards{kept}; {estimated.seconds:,.0f} s {where}{price} "
        f"({measured.row_seconds * 1e6:.2f} us a row on {measured.rows:,} rows)"
    )


def _score(
    settings: Settings,
    plan: BatchPlan,
    compute: Compute,
    *,
    lease: Lease,
    progress: Progress,
    rejected: RejectedRows,
    priority: Priority,
) -> Iterator[Watched]:
    """Each shard as it is done; at the end the first failure, if there was one."""
    failed: list[Exception] = []
    shards = {f"{plan.run}-{shard.id}": shard for shard in plan.shards}
    calls = (Call(key, score_watched, (settings, plan.job, shards[key])) for key in shards)
    for done in compute.run(
        calls, priority=priority, began=lambda key: progress.began(shards[key].id)
    ):
        lease.check()
        if done.error is not None:
            progress.failed(shards[done.key].id, done.error)
            failed.append(done.error)
            continue
        progress.done(done.result.record)
        rejected.add(done.result.record)
        yield done.result
    if failed:
        raise failed[0]
