"""Keep a feature view fresh between materialisations: push events as they come.

Reads events of one view as JSON lines from a file or standard input, or from a Redis Stream, and
writes them online at once and offline in parts. Goes on where it stopped; ends with the file, when
idle, or on SIGTERM after the batch. Exit code 3 means that events were rejected.
"""

from prefect import flow
from pydantic import Field

from featurestore.push.consume import Pace
from featurestore.push.push import Target
from flows._command import FlowConfig, FlowReport, run, run_name
from headrace.errors import ExitCode
from headrace.settings import load_settings
from tasks import streams


class PushFeaturesConfig(FlowConfig):
    """Which events, and how they are put together."""

    view: str = Field(description="the feature view that the events are rows of")
    source: str = Field(
        description="a file of JSON lines, '-' for standard input, or "
        "redis://host:port/database?stream=NAME"
    )
    to: Target = Field("both", description="which store: online, offline, or both")
    once: bool = Field(False, description="end as soon as no event waits; a file always ends")
    idle_seconds: float | None = Field(
        None, gt=0, description="end when no event has come for so long; never if left out"
    )
    batch_events: int = Field(1_000, ge=1, description="events written online together, at most")
    batch_seconds: float = Field(1.0, gt=0, description="how long an event waits for others")
    flush_events: int = Field(50_000, ge=1, description="events in one offline part, at most")
    flush_seconds: float = Field(
        60.0, ge=0, description="how long an event waits before it goes offline"
    )
    group: str = Field(
        "", description="consumer group of a Redis stream; headrace-<view> if left out"
    )
    consumer: str = Field(
        "", description="this consumer's name in the group; the machine's if left out"
    )


class PushFeaturesReport(FlowReport):
    """What was pushed."""

    view: str
    source: str
    events: int
    rejected: int
    rejected_folder: str
    entities_written: int
    rows_added: int

    def lines(self) -> list[tuple[str, str]]:
        """What came, and where it went."""
        rejected = f", see {self.rejected_folder}" if self.rejected else ""
        return [
            ("events", f"{self.events:,} of {self.view}, from {self.source}"),
            ("online", f"{self.entities_written:,} rows written"),
            ("offline", f"{self.rows_added:,} rows added"),
            ("rejected", f"{self.rejected:,}{rejected}"),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where events were rejected."""
        return ExitCode.FINDING if self.rejected else ExitCode.DONE


@flow(name="push-features", flow_run_name=run_name)
def push_features(config: PushFeaturesConfig) -> PushFeaturesReport:
    """Push events of a feature view into the online and the offline store as they come."""
    settings = load_settings()
    stream = streams.Stream(
        view=config.view,
        source=config.source,
        to=config.to,
        group=config.group,
        consumer=config.consumer,
    )
    pace = Pace(
        config.batch_events, config.batch_seconds, config.flush_events, config.flush_seconds
    )
    idle_seconds = 0.0 if config.once else config.idle_seconds
    done = streams.push_events(settings, stream, pace, idle_seconds=idle_seconds)
    return PushFeaturesReport(
        view=config.view,
        source=streams.shown_source(stream),
        events=done.events,
        rejected=done.rejected,
        rejected_folder=settings.uri("rejected_events", config.view),
        entities_written=done.entities_written,
        rows_added=done.rows_added,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(push_features, PushFeaturesConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
