"""Find batch runs that were killed, tell Prefect, and start their work again.

Prefect shows a run whose process was killed as running for ever. This flow knows such runs by their
heartbeats, marks them crashed and starts the same work once; what was finished of it is kept. Runs
each minute (prefect.yaml); each batch run looks too when it begins.
"""

from prefect import flow
from prefect.logging import get_run_logger

from flows._command import FlowConfig, FlowReport, run, run_name
from headrace.errors import ExitCode
from headrace.settings import load_settings
from tasks.batch import reaper


class ResumeBatchesConfig(FlowConfig):
    """Nothing to choose: every batch run that was killed goes on."""


class ResumeBatchesReport(FlowReport):
    """What became of the runs that were killed."""

    started_again: tuple[str, ...]
    left: tuple[str, ...]
    """Those that are not started again, and why."""

    def lines(self) -> list[tuple[str, str]]:
        """One line a run."""
        again = [("started again", command) for command in self.started_again]
        left = [("left", why) for why in self.left]
        return again + left or [("killed runs", "none")]

    @property
    def exit_code(self) -> ExitCode:
        """``FINDING`` where a person must look at a run."""
        return ExitCode.FINDING if self.left else ExitCode.DONE


@flow(name="resume-batches", flow_run_name=run_name)
def resume_batches(config: ResumeBatchesConfig) -> ResumeBatchesReport:  # noqa: ARG001
    """Find batch runs that were killed, tell Prefect, and start their work again."""
    reaped = reaper.reap(load_settings(), watch=True, say=get_run_logger().info)
    again = [one for one in reaped if one.outcome == "started again"]
    return ResumeBatchesReport(
        started_again=tuple(one.run.command for one in again),
        left=tuple(one.told for one in reaped if one not in again),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(resume_batches, ResumeBatchesConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
