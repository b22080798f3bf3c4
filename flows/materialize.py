"""Bring the latest feature values into the online store, from which servers read.

Runs nightly (prefect.yaml: materialize). Incremental: each view goes on where it stopped.
"""

from datetime import datetime

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
    rebuild: bool = Field(
        False, description="forget what is there and write every view from the start"
    )
    replace: bool = Field(
        False, description="rebuild a changed view even if a model that an endpoint runs reads it"
    )


class MaterializeReport(FlowReport):
    """What was written, by feature view."""

    online_store: str
    keys_written: dict[str, int]
    rows_read: dict[str, int]
    newest_values: dict[str, datetime | None]
    """The latest event time that a view has."""

    def lines(self) -> list[tuple[str, str]]:
        """A line a view."""
        return [("online store", self.online_store), *map(self._line, self.keys_written)]

    def _line(self, view: str) -> tuple[str, str]:
        newest = self.newest_values[view]
        age = f"newest value {newest:%Y-%m-%d %H:%M} UTC" if newest else "no values"
        rows = f"{self.rows_read[view]:,} new rows"
        return view, f"{self.keys_written[view]:,} keys written from {rows}, {age}"


@flow(name="materialize", flow_run_name=run_name)
def materialize(config: MaterializeConfig) -> MaterializeReport:
    """Bring the latest feature values into the online store."""
    settings = load_settings()
    until = midnight(config.until) if config.until else None
    written = features.materialize(
        settings, until=until, rebuild=config.rebuild, replace=config.replace
    )
    return MaterializeReport(
        online_store=", ".join(sorted({view.store for view in written})),
        keys_written={view.view: view.keys_written for view in written},
        rows_read={view.view: view.rows_read for view in written},
        newest_values={view.view: view.newest for view in written},
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(materialize, MaterializeConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
