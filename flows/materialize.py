"""Bring the latest feature values into the online store, from which servers read.

Runs nightly (prefect.yaml: materialize). Incremental: each view goes on where it stopped.
"""

from prefect import flow
from pydantic import Field

from flows._command import Day, FlowConfig, FlowReport, run, run_name
from headrace.settings import load_settings
from headrace.window import midnight
from tasks import features


class MaterializeConfig(FlowConfig):
    """Up to when."""

    until: Day | None = Field(
        None, description="only what was known before this day (UTC); all there is if left out"
    )
    replace: bool = Field(
        False, description="rebuild a changed view even if a model that an endpoint runs reads it"
    )


class MaterializeReport(FlowReport):
    """What was written, by feature view."""

    online_store: str
    keys_written: dict[str, int]

    def lines(self) -> list[tuple[str, str]]:
        """A line a view."""
        views = [(view, f"{keys:,} keys written") for view, keys in self.keys_written.items()]
        return [("online store", self.online_store), *views]


@flow(name="materialize", flow_run_name=run_name)
def materialize(config: MaterializeConfig) -> MaterializeReport:
    """Bring the latest feature values into the online store."""
    settings = load_settings()
    until = midnight(config.until) if config.until else None
    written = features.materialize(settings, until=until, replace=config.replace)
    return MaterializeReport(
        online_store=str(settings.online_path),
        keys_written={view.view: view.keys_written for view in written},
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(materialize, MaterializeConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
