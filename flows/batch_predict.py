"""Score a month (or any window) of rows with an endpoint's champion, on Dask.

Parts are written whole and become visible with one manifest, last. A killed run resumes where it
stopped; a repeated run finds itself done and does nothing. Runs monthly (prefect.yaml).
"""

from prefect import flow
from pydantic import Field

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
from headrace.settings import load_settings
from tasks import scoring, windows
from tasks.shards import ROWS_PER_SHARD


class BatchPredictConfig(FlowConfig):
    """Which rows, with which model."""

    model: ModelName = Field(description="a model spec in models/; its scoring table is the input")
    month: Month | None = Field(
        None, description="the month to score, 2013-08; the last one of the table if left out"
    )
    since: Day | None = Field(None, description="first day (UTC), instead of a month")
    until: Day | None = Field(None, description="the day after the last (UTC), with --since")
    endpoint: EndpointName | None = Field(
        None, description="whose champion scores; named like the model if left out"
    )
    rows_per_shard: int = Field(
        ROWS_PER_SHARD, ge=1, le=10_000_000, description="rows that one Dask future scores"
    )


class BatchPredictReport(FlowReport):
    """What was scored and where it is."""

    model: str
    window: str
    rows: int
    predicted: int
    rejected: int
    shards: int
    bundle: str
    folder: str
    was_done: bool

    def lines(self) -> list[tuple[str, str]]:
        """Counts and the folder."""
        done = " (was done already)" if self.was_done else ""
        return [
            ("scored", f"{self.window} of {self.model}{done}"),
            ("rows", f"{self.rows:,} = {self.predicted:,} predicted + {self.rejected:,} rejected"),
            ("shards", str(self.shards)),
            ("bundle", self.bundle),
            ("predictions", self.folder),
        ]


@flow(name="batch-predict", flow_run_name=run_name)
def batch_predict(config: BatchPredictConfig) -> BatchPredictReport:
    """Score a window of rows with an endpoint's champion, on Dask."""
    settings = load_settings()
    asked = windows.Asked(config.month, config.since, config.until)
    window = windows.choose(settings, config.model, asked)
    digest = windows.champion(settings, config.endpoint or config.model)
    plan = scoring.plan_batch(
        settings, config.model, window, digest=digest, rows_per_shard=config.rows_per_shard
    )
    if plan.is_committed:
        manifest = scoring.committed(plan)
    else:
        records = scoring.score_shards(settings, plan)
        manifest = scoring.commit_batch(plan, records)
    return BatchPredictReport(
        model=config.model,
        window=str(window),
        rows=manifest.rows,
        predicted=manifest.predicted,
        rejected=manifest.rejected,
        shards=len(manifest.shards),
        bundle=manifest.bundle,
        folder=plan.folder,
        was_done=plan.is_committed,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(batch_predict, BatchPredictConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
