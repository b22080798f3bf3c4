"""Score every window of a model's scoring table between two days, or those that were missed.

Oldest first, each like ``batch_predict`` of that window and under its own lease, so two backfills
share the work and never write the same window. Runs nightly with --missed (prefect.yaml): a night
that did not run is caught up by the next one.
"""

from typing import Annotated

from prefect import flow
from prefect.logging import get_run_logger
from pydantic import AfterValidator, Field

from flows._command import Day, EndpointName, FlowConfig, FlowReport, ModelName, run, run_name
from flows.batch_predict import BatchPredictConfig, batch_predict, checked_limit
from headrace.errors import DatesOutsideData, HeadraceError
from headrace.settings import Settings, load_settings
from headrace.window import Window
from tasks.batch import backfill as steps
from tasks.batch import reaper
from tasks.batch.estimate import Where
from tasks.clusters import Priority

MODULE = "flows.backfill"
"""What ``python -m`` takes to start it again."""


class WindowsFailed(HeadraceError):
    """Windows of a backfill that could not be scored; the others were."""

    def __init__(self, failed: dict[str, str], scored: int) -> None:
        self.failed, self.scored = failed, scored
        told = "; ".join(f"{window}: {why}" for window, why in failed.items())
        super().__init__(f"{len(failed)} windows failed ({scored} were scored): {told}")


class BackfillConfig(FlowConfig):
    """Which windows."""

    model: ModelName = Field(description="a model spec in models/; its scoring table is the input")
    since: Day | None = Field(None, description="first day (UTC) of the first window")
    until: Day | None = Field(None, description="the day after the last window (UTC)")
    every: steps.Every = Field("day", description="how long a window is")
    missed: bool = Field(
        False, description="instead of days: those not committed since the first that was"
    )
    refresh: bool = Field(
        False,
        description="also windows that are committed, where the rows, the features or the "
        "champion have changed since",
    )
    endpoint: EndpointName | None = Field(
        None, description="whose champion scores; named like the model if left out"
    )
    max_rejected: Annotated[str, AfterValidator(checked_limit)] | None = Field(
        None, description="as of batch_predict, for each window"
    )
    priority: Priority = Field("low", description="on a cluster that several runs share")
    compute: Where = Field("auto", description="as of batch_predict")
    dry_run: bool = Field(False, description="only name the windows")


class BackfillReport(FlowReport):
    """What became of each window."""

    model: str
    windows: dict[str, str]
    """By window: scored, committed before, without rows, or to do."""

    def lines(self) -> list[tuple[str, str]]:
        """A line a window."""
        return list(self.windows.items()) or [("windows", "none is missing")]


@flow(name="backfill", flow_run_name=run_name)
def backfill(config: BackfillConfig) -> BackfillReport:
    """Score every window between two days that is not committed, or those that were missed."""
    settings = load_settings()
    with reaper.batch_run(settings, module=MODULE, config=config):
        return _backfill(settings, config)


def _backfill(settings: Settings, config: BackfillConfig) -> BackfillReport:
    told: dict[str, str] = {}
    failed: dict[str, str] = {}
    for window in steps.asked_windows(
        settings, config.model, config.every, config.since, config.until, missed=config.missed
    ):
        if not config.refresh and steps.is_committed(settings, config.model, window):
            told[str(window)] = "committed before"
        elif config.dry_run:
            told[str(window)] = "to do"
        else:
            try:
                told[str(window)] = _score(config, window)
            except HeadraceError as error:  # the other windows are not held up by it
                failed[str(window)] = str(error)
                get_run_logger().error("%s failed: %s", window, error)
    if failed:
        scored = sum(what.startswith("scored") for what in told.values())
        raise WindowsFailed(failed, scored)
    return BackfillReport(model=config.model, windows=told)


def _score(config: BackfillConfig, window: Window) -> str:
    asked = BatchPredictConfig(
        model=config.model,
        since=window.since.date(),
        until=window.until.date(),
        endpoint=config.endpoint,
        max_rejected=config.max_rejected,
        priority=config.priority,
        compute=config.compute,
    )
    try:
        report = batch_predict(asked)
    except DatesOutsideData:
        return "no rows"
    if report.was_done:
        return "committed before"
    return f"scored: {report.predicted:,} predicted + {report.rejected:,} rejected"


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(backfill, BackfillConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
