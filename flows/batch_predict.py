"""Score a table of any size with a bundle: on this machine or on a cluster, from and to anywhere.

Shards are written whole and become visible with one manifest, last. A killed run goes on where it
stopped; a repeated run finds itself done and does nothing; rows that cannot be scored are kept with
the reason. Runs monthly (prefect.yaml). docs/batch.md tells the whole.
"""

from typing import Annotated, Literal

from prefect import flow
from pydantic import AfterValidator, AwareDatetime, Field

from flows._command import (
    Day,
    EndpointName,
    FlowConfig,
    FlowReport,
    ModelName,
    Month,
    run,
    run_name,
)
from headrace.settings import Settings, load_settings
from tasks.batch import asked, reaper, steps
from tasks.batch.commit import Manifest
from tasks.batch.estimate import Estimate, Where
from tasks.batch.inputs.opening import AskedFormat
from tasks.batch.job import Features
from tasks.batch.limits import RejectedLimit
from tasks.batch.plan import ROWS_PER_SHARD, BatchPlan, Files, Options
from tasks.batch.steps import Actual
from tasks.clusters import Priority
from tasks.windows import Asked

MODULE = "flows.batch_predict"
"""What ``python -m`` takes; a run that was killed is started again by it."""


def checked_limit(text: str) -> str:
    """A limit of rejected rows as it was written, if it is one."""
    RejectedLimit.parse(text)
    return text


class BatchPredictConfig(FlowConfig):
    """Which rows, with which model, and how."""

    model: ModelName | None = Field(
        None, description="a model spec in models/: its scoring table is the input"
    )
    month: Month | None = Field(
        None, description="the month of it, 2013-08; the last one of the table if left out"
    )
    since: Day | None = Field(None, description="first day (UTC), instead of a month")
    until: Day | None = Field(None, description="the day after the last (UTC), with --since")
    input: str | None = Field(
        None,
        description="another dataset instead: a file, a folder, a glob in quotes, a Delta or "
        "Iceberg table; Parquet, CSV or JSON lines; local or s3://...",
    )
    format: AskedFormat | None = Field(
        None, description="how the rows of --input lie there; by the ending of the names"
    )
    endpoint: EndpointName | None = Field(
        None, description="whose champion scores; the one named like --model if left out"
    )
    bundle: str | None = Field(
        None, description="the bundle that scores, by its digest, instead of a champion"
    )
    features: Features | None = Field(
        None,
        description="offline: joined as they were known at each row's moment; online: the latest "
        "of the online store; input: the input's own columns. If left out offline, or input where "
        "--input is given and the model reads no feature view",
    )
    at: AwareDatetime | None = Field(
        None,
        description="the moment of every row, where the input has no column of moments: "
        "2013-08-01T00:00:00Z",
    )
    output: str | None = Field(
        None,
        description="folder or URL of the predictions; predictions/<model>/<window> in the "
        "storage if left out",
    )
    keep: tuple[str, ...] | None = Field(
        None,
        description="columns of the input that the output has too, a,b,c or all; its entity keys "
        "and moments if left out",
    )
    max_rejected: Annotated[str, AfterValidator(checked_limit)] | None = Field(
        None,
        description="how many rows may be rejected before the run fails, a share or a count "
        "(0.5% or 1000); any number if left out",
    )
    bad_files: Literal["stop", "skip"] = Field(
        "stop",
        description="at a file that is damaged or does not fit the others: stop, or skip it and "
        "name it in the manifest and the report",
    )
    allow_empty: bool = Field(False, description="an input without rows is no error")
    to: Annotated[str, AfterValidator(steps.checked_target)] | None = Field(
        None,
        description="after the commit, bring the predictions there too: "
        "postgresql://user@host/database/table or bigquery://project/dataset/table; passwords come "
        "from the environment",
    )
    priority: Priority = Field("normal", description="on a cluster that several runs share")
    compute: Where = Field(
        "auto",
        description="cluster: on the cluster of HEADRACE_CLUSTER; here: in this process; auto: "
        "here if that is sooner than starting local workers",
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "auto", description="what the model runs on; auto: a GPU where a worker has one"
    )
    budget: float | None = Field(
        None,
        ge=0,
        description="do not start if the estimated price is above (settings/prices.toml)",
    )
    dry_run: bool = Field(False, description="only check the input and estimate")
    rows_per_shard: int = Field(
        ROWS_PER_SHARD,
        ge=1,
        le=100_000_000,
        description="rows that are scored, recorded and resumed as one; whole row groups",
    )

    @property
    def files(self) -> Files | None:
        """The dataset, if it is not a scoring table."""
        if self.input is None:
            return None
        return Files(
            uri=self.input,
            format=self.format,
            bad_files=self.bad_files,
            allow_empty=self.allow_empty,
        )

    @property
    def limit(self) -> RejectedLimit | None:
        """How many rows may be rejected."""
        return None if self.max_rejected is None else RejectedLimit.parse(self.max_rejected)

    @property
    def options(self) -> Options:
        """How rows are scored."""
        return Options(
            features=self.features,
            keep=self.keep,
            at=self.at,
            rows_per_shard=self.rows_per_shard,
            device=self.device,
        )


class BatchPredictReport(FlowReport):
    """What was scored and where it is."""

    source: str
    """What went in, in words."""
    model: str
    bundle: str
    run: str
    rows: int
    predicted: int | None
    """None: nothing was scored (``--dry-run``)."""
    rejected: int | None
    reasons: dict[str, int]
    """The commonest reasons of rejected rows."""
    shards: int
    quarantined: dict[str, str]
    """Files that were left out, and why."""
    unplaced: int
    """Rows of the scoring table without a moment: in no window, neither scored nor rejected."""
    output: str
    revision: int | None
    was_done: bool
    """The run was committed before; nothing was scored."""
    estimate: Estimate | None
    actual: Actual | None
    delivered: str | None

    def lines(self) -> list[tuple[str, str]]:
        """Counts and places."""
        done = " (was done already)" if self.was_done else ""
        found = [
            ("scored" if self.predicted is not None else "would score", self.source + done),
            ("rows", self._rows()),
            *(("", f"{count:,} x {reason}") for reason, count in self.reasons.items()),
            ("shards", str(self.shards)),
            ("bundle", self.bundle),
        ]
        if self.estimate:
            found.append(("estimate", _took(self.estimate)))
        if self.actual:
            rate = f", {self.actual.rows_per_second:,.0f} rows/s"
            busy = self.actual.gpu_utilisation
            gpu = f", GPUs {busy:.0%} busy" if busy is not None else ""
            found.append(("actual", _took(self.actual) + rate + gpu))
        found += [("left out", f"{uri}: {why}") for uri, why in self.quarantined.items()]
        if self.unplaced:
            found.append(("left out", f"{self.unplaced:,} rows of the table without a moment"))
        found.append(("predictions", self.output))
        return [*found, ("delivered", self.delivered)] if self.delivered else found

    def _rows(self) -> str:
        if self.predicted is None:
            return f"{self.rows:,}"
        return f"{self.rows:,} = {self.predicted:,} predicted + {self.rejected:,} rejected"


def _took(what: Estimate | Actual) -> str:
    where = "in this process" if what.kind == "here" else f"on {what.workers} workers"
    price = f", {what.price:.2f} {what.currency}" if what.price else ""
    return f"{what.seconds:,.1f} s {where}{price}"


@flow(name="batch-predict", flow_run_name=run_name)
def batch_predict(config: BatchPredictConfig) -> BatchPredictReport:
    """Score a table of any size with a bundle, on this machine or on a cluster."""
    settings = load_settings()
    with reaper.batch_run(settings, module=MODULE, config=config):
        return _predict(settings, config)


def _predict(settings: Settings, config: BatchPredictConfig) -> BatchPredictReport:
    window = Asked(config.month, config.since, config.until)
    source = asked.which_rows(settings, model=config.model, asked=window, files=config.files)
    digest = asked.which_bundle(
        settings, bundle=config.bundle, endpoint=config.endpoint, model=config.model
    )
    plan = steps.plan_batch(settings, source, config.options, digest=digest, output=config.output)
    manifest = steps.committed(plan)
    was_done, estimated, actual = manifest is not None, None, None
    if manifest is None:
        estimated = steps.estimate_batch(settings, plan, where=config.compute, budget=config.budget)
        if config.dry_run:
            return _report(plan, estimate=estimated)
        manifest, actual = steps.score_and_commit(
            settings,
            plan,
            estimated=estimated,
            max_rejected=config.limit,
            priority=config.priority,
        )
    delivered = steps.deliver_batch(plan, manifest, to=config.to) if config.to else None
    return _report(
        plan,
        manifest,
        was_done=was_done,
        estimate=estimated,
        actual=actual,
        delivered=delivered,
    )


def _report(
    plan: BatchPlan,
    manifest: Manifest | None = None,
    *,
    was_done: bool = False,
    estimate: Estimate | None = None,
    actual: Actual | None = None,
    delivered: str | None = None,
) -> BatchPredictReport:
    return BatchPredictReport(
        source=plan.source,
        model=plan.model,
        bundle=plan.job.digest,
        run=plan.run,
        rows=plan.rows,
        predicted=manifest.predicted if manifest else None,
        rejected=manifest.rejected if manifest else None,
        reasons=steps.reasons(plan, manifest) if manifest else {},
        shards=len(plan.shards),
        quarantined=plan.quarantined,
        unplaced=plan.unplaced,
        output=plan.job.output,
        revision=manifest.revision if manifest else None,
        was_done=was_done or (manifest is not None and actual is None),
        estimate=estimate,
        actual=actual,
        delivered=delivered,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(batch_predict, BatchPredictConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
