"""Train a model on what was known, test it on what came later, and register it if its gates hold.

Leaves a bundle (the model and all that is needed to serve it) and a model version; nothing is
served by it until `python -m flows.deploy`.
"""

from prefect import flow
from pydantic import Field

from flows._command import Day, FlowConfig, FlowReport, ModelName, run, run_name
from headrace.errors import ExitCode
from headrace.scorecard import Scorecard
from headrace.settings import load_settings
from headrace.window import midnight
from registry.gates import GateResult
from tasks import training
from tasks.training_sets import TrainingSet


class TrainConfig(FlowConfig):
    """Which model, on which labels."""

    model: ModelName = Field(description="a model spec in models/")
    since: Day | None = Field(None, description="first day of labels (UTC); the earliest there is")
    until: Day | None = Field(
        None,
        description="train and test as of this day (UTC): nothing known later is used; the last "
        "days before it are the holdout",
    )


class TrainReport(FlowReport):
    """What was trained, how good it is, and where it is."""

    model: str
    training_set: TrainingSet
    scorecard: Scorecard
    gates: tuple[GateResult, ...]
    digest: str | None
    """None where a gate failed: such a model is not registered."""
    version: int | None

    def lines(self) -> list[tuple[str, str]]:
        """Windows, metrics, gates, and the version."""
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in self.scorecard.metrics.items())
        failed = [gate.sentence for gate in self.gates if not gate.passed]
        return [
            ("model", self.model),
            ("trained on", str(self.training_set.train)),
            ("tested on", f"{self.training_set.holdout} ({self.scorecard.rows:,} rows)"),
            ("metrics", metrics),
            ("gates", "; ".join(failed) or f"all {len(self.gates)} hold"),
            ("bundle", self.digest or "none: not registered"),
            ("version", str(self.version or "none")),
        ]

    @property
    def exit_code(self) -> ExitCode:
        """A finding where a gate failed."""
        return ExitCode.DONE if self.digest else ExitCode.FINDING


@flow(name="train", flow_run_name=run_name)
def train(config: TrainConfig) -> TrainReport:
    """Train a model, test it on later data, and register it if its gates hold."""
    settings = load_settings()
    model = config.model
    training.ask_registry(settings, model)
    training_set = training.build_training_set(
        settings,
        model,
        since=midnight(config.since) if config.since else None,
        until=midnight(config.until) if config.until else None,
    )
    fitted = training.fit(settings, model, training_set)
    card = training.score_holdout(model, training_set, fitted)
    gates = training.check_gates(model, card)
    digest = version = None
    if all(gate.passed for gate in gates):
        digest = training.build_bundle(
            settings, model, training_set, fitted=fitted, card=card, gates=gates
        )
        version = training.register(settings, model, digest).version
    return TrainReport(
        model=model,
        training_set=training_set,
        scorecard=card,
        gates=gates,
        digest=digest,
        version=version,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(train, TrainConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
