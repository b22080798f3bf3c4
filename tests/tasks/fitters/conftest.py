"""A training set of 60 made-up days, and the whole way from a spec to a bundle that answers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import storage
from headrace.bundle import write_bundle
from headrace.plan import FeaturePlan
from headrace.release import move_release
from headrace.scorecard import Scorecard
from headrace.settings import Settings
from headrace.spec import Gate, LabelSource, ModelSpec, RequestField, TimeHoldout
from headrace.window import Window
from serving.predictor import Predictor, load_predictor
from tasks import fitting
from tasks.bundling import bundle_of
from tasks.training_sets import LABEL, TrainingSet

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS, HOLDOUT_DAYS, ROWS = 60, 15, 3000
NAMES = ("a", "b", "c", "d")
GATES = {
    "binary": Gate(metric="roc_auc", at_least=0.5),
    "regression": Gate(metric="rmse", at_most=99),
}


def spec_of(trainer: object, *, name: str = "made_up", task: str = "binary") -> ModelSpec:
    return ModelSpec(
        name=name,
        description="A model of made-up rows, for tests.",
        owner="tests",
        label=LabelSource(
            table="labels",
            entity_keys=("id",),
            event_timestamp="at",
            created_timestamp="known",
            column="outcome",
        ),
        scoring_table="rows",
        task=task,
        request=tuple(RequestField(name=n, description="a number") for n in NAMES),
        inputs_from_request=NAMES,
        trainer=trainer,
        validation=TimeHoldout(days=HOLDOUT_DAYS),
        gates=(GATES[task],),
        rollout={"metric": "roc_auc" if task == "binary" else "rmse"},
    )


def table_of(task: str) -> pa.Table:
    """Rows in order of time; ``a`` and ``b`` tell of the outcome, a tenth of all is missing."""
    random = np.random.default_rng(5)
    matrix = random.normal(size=(ROWS, len(NAMES))).astype(np.float32) * [1, 10, 0.1, 1]
    signal = matrix[:, 0] + matrix[:, 1] / 10 + random.normal(size=ROWS) / 2
    label = (signal > 0) if task == "binary" else 50 + 10 * signal
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    at = [START + timedelta(days=DAYS) * row / ROWS for row in range(ROWS)]
    columns = dict(zip(NAMES, matrix.astype(np.float32).T, strict=True))
    times = pa.array(at, pa.timestamp("us", "UTC"))
    return pa.table(
        {"id": np.arange(ROWS), "at": times, "known": times}
        | {name: np.ascontiguousarray(column) for name, column in columns.items()}
        | {LABEL: np.asarray(label, np.float32)}
    )


@dataclass
class Workshop:
    """A home folder in which models are fitted and bundled."""

    settings: Settings

    def training_set(self, spec: ModelSpec, *, until_day: int = DAYS) -> TrainingSet:
        sink = pa.BufferOutputStream()
        pq.write_table(table_of(spec.task), sink)
        data = bytes(sink.getvalue())
        digest = storage.sha256(data)
        uri = self.settings.uri("training_sets", f"{digest}.parquet")
        storage.write_atomic(uri, data)
        split, until = (START + timedelta(days=d) for d in (until_day - HOLDOUT_DAYS, until_day))
        plan = FeaturePlan(
            project="p",
            feature_service=None,
            definitions_sha256="0" * 64,
            event_timestamp="at",
            views=(),
            request=spec.request,
            inputs_from_request=spec.inputs_from_request,
            transforms=(),
        )
        return TrainingSet(
            uri=uri,
            sha256=digest,
            rows=ROWS,
            train=Window(since=START, until=split),
            holdout=Window(since=split, until=until),
            plan=plan,
            null_reasons={},
            certificate_uri="",
            certificate_sha256="0" * 64,
        )

    def bundle(self, spec: ModelSpec, *, until_day: int = DAYS) -> tuple[str, Scorecard]:
        """Fit, score and bundle; return the digest and the holdout's metrics."""
        training_set = self.training_set(spec, until_day=until_day)
        fitted = fitting.fit(self.settings, spec, training_set)
        card = fitting.score_holdout(spec, training_set, fitted)
        manifest, files = bundle_of(spec, training_set, fitted=fitted, card=card, gates=())
        return write_bundle(self.settings.uri("bundles"), manifest, files), card

    def load(self, digest: str) -> Predictor:
        return load_predictor(self.settings.uri("bundles"), digest)

    def deploy(self, endpoint: str, digest: str) -> None:
        move_release(
            self.settings.storage_uri,
            endpoint,
            champion=digest,
            expected=0,
            by="a test",
            reason="it needs a running model",
        )


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Workshop:
    return Workshop(Settings(home=tmp_path / "home"))


@pytest.fixture
def model_file(tmp_path, monkeypatch) -> Callable[[str], str]:
    """Write functions into a module of the person's own; return its name."""

    def write(source: str) -> str:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "own_model.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(__import__("sys").modules, "own_model", raising=False)
        return "own_model"

    return write


@pytest.fixture
def spec() -> Callable[..., ModelSpec]:
    return spec_of
