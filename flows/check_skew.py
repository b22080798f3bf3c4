"""Prove that training and serving agree: replay logged requests against the point-in-time join.

Every value that a model saw online must be what a training set would hold for that row; each one
that is not gets its cause. Runs daily (prefect.yaml: check-skew). Exit code 3 means skew.
"""

from prefect import flow
from pydantic import Field

from flows._command import Day, EndpointName, FlowConfig, FlowReport, Month, run, run_name
from headrace.errors import ExitCode
from headrace.settings import load_settings
from tasks import skew, windows


class CheckSkewConfig(FlowConfig):
    """Which requests."""

    endpoint: EndpointName = Field(description="whose inference log")
    month: Month | None = Field(
        None, description="the month of arrival, 2013-08; the last 30 days if left out"
    )
    since: Day | None = Field(None, description="first day of arrival (UTC), instead of a month")
    until: Day | None = Field(None, description="the day after the last (UTC), with --since")


class CheckSkewReport(FlowReport):
    """The verdict, and where the report lies."""

    skew: skew.SkewOfWindow
    report: str

    def lines(self) -> list[tuple[str, str]]:
        """The verdict, and a line for each source and cause."""
        return [
            ("checked", f"{self.skew.window} of {self.skew.endpoint}"),
            ("verdict", self.skew.sentence),
            *(
                (found.source, f"{found.values:,} {found.cause} ({found.share:.2%})")
                for report in self.skew.reports
                for found in report.findings
            ),
            ("report", self.report),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where anything mismatches."""
        return ExitCode.FINDING if self.skew.skewed else ExitCode.DONE


@flow(name="check-skew", flow_run_name=run_name)
def check_skew(config: CheckSkewConfig) -> CheckSkewReport:
    """Replay logged requests against the point-in-time join, and name every mismatch."""
    settings = load_settings()
    window = windows.choose_logged(windows.Asked(config.month, config.since, config.until))
    found = skew.replay_log(settings, config.endpoint, window)
    return CheckSkewReport(skew=found, report=skew.write_report(settings, found))


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(check_skew, CheckSkewConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
