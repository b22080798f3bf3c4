"""The whole loop on a year of real flights, from nothing: what `make demo` runs.

Writes the sample tables, materialises features, trains on January to June, tests on July, deploys,
asks a real server, scores August, checks it for drift, and lets a challenger trained until the
end of October compete on November.
"""

from datetime import date

from prefect import flow

from flows._command import FlowConfig, FlowReport, run, run_name
from flows.batch_predict import BatchPredictConfig, BatchPredictReport, batch_predict
from flows.check_drift import CheckDriftConfig, CheckDriftReport, check_drift
from flows.deploy import DeployConfig, DeployReport, deploy
from flows.materialize import MaterializeConfig, materialize
from flows.retrain import RetrainConfig, RetrainReport, retrain
from flows.train import TrainConfig, TrainReport, train
from headrace.errors import HeadraceError
from headrace.settings import load_settings
from headrace.window import Window, midnight
from tasks import sample, serving_check
from tasks.serving_check import Answer

MODEL = "flight_delay"
TRAINED_UNTIL = date(2013, 8, 1)
SCORED_MONTH = "2013-08"
RETRAINED_UNTIL = date(2013, 12, 1)


class NotTrained(HeadraceError):
    """The sample model failed its gates."""

    def __init__(self, trained: TrainReport) -> None:
        failed = "; ".join(gate.sentence for gate in trained.gates if not gate.passed)
        super().__init__(f"the sample model did not pass its gates: {failed}")


class QuickstartConfig(FlowConfig):
    """Nothing to choose: the same loop for everyone."""


class QuickstartReport(FlowReport):
    """What each part of the loop made."""

    rows: int
    trained: TrainReport
    deployed: DeployReport
    answer: Answer
    scored: BatchPredictReport
    drift: CheckDriftReport
    retrained: RetrainReport

    def lines(self) -> list[tuple[str, str]]:
        """A line a part, then what to try next."""
        answer = self.answer
        verdict = "promoted" if self.retrained.promoted else "champion kept"
        return [
            ("", ""),
            ("offline tables", f"{self.rows:,} rows"),
            (
                "model",
                f"{MODEL} version {self.trained.version}, ROC AUC on July "
                f"{self.trained.scorecard.metrics['roc_auc']:.3f}",
            ),
            (
                "server",
                f"first answer after {answer.ready_seconds:.1f} s, "
                f"{len(answer.predictions)} flights in {answer.answer_milliseconds:.1f} ms",
            ),
            (
                "predictions",
                f"{self.scored.predicted:,} flights of {SCORED_MONTH}, "
                f"{self.scored.rejected} rejected",
            ),
            ("", self.scored.output),
            ("drift", self.drift.drift.sentence),
            ("", str(self.drift.report)),
            (
                "retrained",
                f"version {self.retrained.challenger}, {verdict}: {self.retrained.reason}",
            ),
            ("release", f"{MODEL}, revision {self.retrained.revision}"),
            ("", ""),
            ("try next", ""),
            ("  serve it", "python -m serving"),
            ("  score a month", f"python -m flows.batch_predict --model {MODEL} --month 2013-09"),
            ("  look at drift", f"python -m flows.check_drift --model {MODEL} --month 2013-10"),
            ("  every run", "python -m tasks.prefect_server status"),
            ("  schedules", "make up"),
        ]


@flow(name="quickstart", flow_run_name=run_name)
def quickstart(config: QuickstartConfig) -> QuickstartReport:  # noqa: ARG001
    """Run the whole loop on a year of real flights, from nothing."""
    settings = load_settings()
    _, rows = sample.write_flights(settings)
    materialize(MaterializeConfig(until=TRAINED_UNTIL))
    trained = train(TrainConfig(model=MODEL, until=TRAINED_UNTIL))
    if trained.version is None:
        raise NotTrained(trained)
    deployed = deploy(
        DeployConfig(model=MODEL, version=trained.version, reason="the first champion")
    )
    morning = Window(since=midnight(TRAINED_UNTIL), until=midnight(date(2013, 8, 2)))
    asked = sample.request_rows(settings, MODEL, morning, rows=3)
    answer = serving_check.ask_server(settings, MODEL, asked)
    scored = batch_predict(BatchPredictConfig(model=MODEL, month=SCORED_MONTH))
    drift = check_drift(CheckDriftConfig(model=MODEL, month=SCORED_MONTH))
    retrained = retrain(RetrainConfig(model=MODEL, until=RETRAINED_UNTIL))
    return QuickstartReport(
        rows=rows,
        trained=trained,
        deployed=deployed,
        answer=answer,
        scored=scored,
        drift=drift,
        retrained=retrained,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(quickstart, QuickstartConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
