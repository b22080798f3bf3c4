"""Compare a window of data with what the champion was trained on.

The profile of the training set, kept in the bundle, makes the decision; Evidently draws the report
that people read. Runs monthly (prefect.yaml: check-drift). Exit code 3 means drift.
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
from headrace.errors import ExitCode
from headrace.settings import load_settings
from monitoring.drift import DriftReport
from tasks import drift, windows


class CheckDriftConfig(FlowConfig):
    """What to compare."""

    model: ModelName = Field(description="a model spec in models/")
    month: Month | None = Field(
        None,
        description="the month to check, 2013-08; if left out, the last one of the table, or the "
        "last 30 days of the log",
    )
    since: Day | None = Field(None, description="first day (UTC), instead of a month")
    until: Day | None = Field(None, description="the day after the last (UTC), with --since")
    endpoint: EndpointName | None = Field(
        None, description="whose champion's training set is the reference; like the model"
    )
    source: drift.Source = Field(
        "table", description="the current window: the scoring table, or the server's inference log"
    )
    report: bool = Field(True, description="draw Evidently's report too")


class CheckDriftReport(FlowReport):
    """The verdict, and where the report lies."""

    model: str
    window: str
    drift: DriftReport
    report: str | None

    def lines(self) -> list[tuple[str, str]]:
        """The verdict, and the columns that moved most."""
        moved = sorted(self.drift.columns, key=lambda column: -column.psi)[:5]
        return [
            ("checked", f"{self.window} of {self.model}"),
            ("verdict", self.drift.sentence),
            *((column.name, f"PSI {column.psi:.3f}") for column in moved if column.drifted),
            ("report", self.report or "not drawn"),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where the window drifted."""
        return ExitCode.FINDING if self.drift.drifted else ExitCode.DONE


@flow(name="check-drift", flow_run_name=run_name)
def check_drift(config: CheckDriftConfig) -> CheckDriftReport:
    """Compare a window of data with what the champion was trained on."""
    settings = load_settings()
    model = config.model
    asked = windows.Asked(config.month, config.since, config.until)
    if config.source == "log":
        window = windows.choose_logged(asked)
    else:
        window = windows.choose(settings, model, asked)
    endpoint = config.endpoint or model
    digest = windows.champion(settings, endpoint)
    current = drift.Current(window=window, digest=digest, source=config.source, endpoint=endpoint)
    found = drift.compare_window(settings, model, current)
    report = drift.draw_report(settings, model, current) if config.report else None
    return CheckDriftReport(model=model, window=str(window), drift=found, report=report)


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(check_drift, CheckDriftConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
