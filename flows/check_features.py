"""Check the health of every feature view: how old, how many values missing, what has moved.

Compares the last week of each view's table with the eight weeks before, and looks how far the
online store reaches. Runs nightly after materialize (prefect.yaml: check-features). Exit code 3
means that something was found: it is recorded, emitted as a Prefect event and posted to the
webhook.
"""

from prefect import flow
from pydantic import Field

from flows._command import FlowConfig, FlowReport, run, run_name
from headrace.errors import ExitCode
from headrace.settings import load_settings
from monitoring.feature_report import FeatureReport
from tasks import alerts, feature_checks
from tasks.alerts import Told


class CheckFeaturesConfig(FlowConfig):
    """What to check, and when now is."""

    at: str = Field(
        "data",
        description="the moment that counts as now: 'data' (just after the newest value of any "
        "table), 'now' (the clock), or a day (UTC)",
    )
    days: int = Field(7, ge=1, le=366, description="length of the window that is judged")
    past: int = Field(
        8, ge=1, le=104, description="how many windows of that length before it it is compared with"
    )


class CheckFeaturesReport(FlowReport):
    """What was found, and where the report lies."""

    health: FeatureReport
    report: str
    alerts: Told

    def lines(self) -> list[tuple[str, str]]:
        """The verdict, and a line a finding."""
        return [
            ("checked", f"{self.health.current} against {self.health.reference}"),
            ("verdict", self.health.sentence),
            *((finding.kind, finding.sentence) for finding in self.health.findings),
            ("report", self.report),
            ("alerts", self.alerts.sentence),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where a view is not healthy."""
        return ExitCode.FINDING if self.health.findings else ExitCode.DONE


@flow(name="check-features", flow_run_name=run_name)
def check_features(config: CheckFeaturesConfig) -> CheckFeaturesReport:
    """Check the health of every feature view."""
    settings = load_settings()
    found = feature_checks.check(settings, at=config.at, days=config.days, past=config.past)
    told = alerts.tell(settings, feature_checks.as_alerts(found.health))
    return CheckFeaturesReport(health=found.health, report=found.uri, alerts=told)


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(check_features, CheckFeaturesConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
