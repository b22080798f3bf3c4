"""Train a challenger on newer data and let it replace the champion only if it is better.

Both are scored on the same later holdout, which neither has seen; the spec's rollout policy
decides, and the reason is written down either way. Runs monthly (prefect.yaml: retrain). Exit code
3 means that the champion was kept.
"""

from prefect import flow
from pydantic import Field

from flows._command import Day, EndpointName, FlowConfig, FlowReport, ModelName, run, run_name
from flows.deploy import DeployConfig, deploy
from flows.train import TrainConfig, TrainReport, train
from headrace.errors import ExitCode
from headrace.release import Release
from headrace.scorecard import Comparison
from headrace.settings import load_settings
from tasks import rollout


class RetrainConfig(FlowConfig):
    """Which model, and on data until when."""

    model: ModelName = Field(description="a model spec in models/")
    since: Day | None = Field(None, description="first day of labels (UTC); the earliest there is")
    until: Day | None = Field(
        None, description="retrain as of this day (UTC): nothing known later is used"
    )
    endpoint: EndpointName | None = Field(
        None, description="the endpoint to move; named like the model if left out"
    )


class RetrainReport(FlowReport):
    """What was decided, and why."""

    model: str
    challenger: int | None
    promoted: bool
    reason: str
    comparison: Comparison | None
    revision: int | None

    def lines(self) -> list[tuple[str, str]]:
        """The verdict with its numbers."""
        return [
            ("challenger", f"{self.model} version {self.challenger or 'none'}"),
            ("verdict", "promoted" if self.promoted else "champion kept"),
            ("reason", self.reason),
            ("release", f"revision {self.revision or 'none'}"),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where the champion was kept."""
        return ExitCode.DONE if self.promoted else ExitCode.FINDING


@flow(name="retrain", flow_run_name=run_name)
def retrain(config: RetrainConfig) -> RetrainReport:
    """Train a challenger on newer data and let it replace the champion only if it is better."""
    settings = load_settings()
    endpoint = config.endpoint or config.model
    champion = rollout.look_up_release(settings, endpoint)
    trained = train(TrainConfig(model=config.model, since=config.since, until=config.until))
    if trained.version is None or trained.digest is None:
        return _kept(trained, "its gates failed; see the train run", champion=champion)
    if champion and trained.digest == champion.champion:
        return _kept(trained, "it is the champion: there was nothing newer", champion=champion)
    comparison, reason = None, "there is no champion yet"
    if champion:
        comparison = rollout.compare_with_champion(
            settings,
            config.model,
            champion=champion.champion,
            challenger=trained.digest,
            holdout=trained.training_set,
        )
        version = rollout.find_version(settings, config.model, trained.version)
        decision = rollout.decide(settings, version, comparison=comparison, gates=trained.gates)
        reason = decision.reason
        if not decision.promote:
            return _kept(trained, reason, champion=champion, comparison=comparison)
    moved = deploy(
        DeployConfig(
            model=config.model,
            version=trained.version,
            endpoint=endpoint,
            expected_revision=champion.revision if champion else 0,
            reason=reason,
        )
    )
    return RetrainReport(
        model=config.model,
        challenger=trained.version,
        promoted=True,
        reason=reason,
        comparison=comparison,
        revision=moved.revision,
    )


def _kept(
    trained: TrainReport,
    reason: str,
    *,
    champion: Release | None,
    comparison: Comparison | None = None,
) -> RetrainReport:
    return RetrainReport(
        model=trained.model,
        challenger=trained.version,
        promoted=False,
        reason=reason,
        comparison=comparison,
        revision=champion.revision if champion else None,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(retrain, RetrainConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
