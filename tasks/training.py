"""The steps from labels to a registered model version.

Between steps travel addresses and small facts, never tables: each step reads what it needs and
writes what it makes under a name that says what it holds.
"""

from datetime import datetime

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from headrace import bundle, storage
from headrace.plan import FeaturePlan
from headrace.scorecard import Scorecard
from headrace.settings import Settings
from headrace.spec import Part, load_spec
from headrace.window import Window
from registry.gates import GateResult
from registry.models import ModelRegistry, ModelVersion
from tasks.step import step


class TrainingSet(Part):
    """Where a training set lies and what is in it."""

    uri: str
    sha256: str
    rows: int
    train: Window
    holdout: Window
    plan: FeaturePlan
    null_reasons: dict[str, dict[str, int]]
    """For each view, how many values are present and why the others are not."""


class Fitted(Part):
    """Where a fitted model lies, and what it was fitted on."""

    uri: str
    training_rows: int


@step("build the training set of {model}")
def build_training_set(
    settings: Settings, model: str, *, since: datetime | None, until: datetime | None
) -> TrainingSet:
    """Join labels and features point in time. Safe to run twice: the file is named by its hash."""
    from tasks import fitting

    spec = load_spec(model)
    window = fitting.label_window(settings, spec, since, until)
    split = fitting.split_at(spec, window)
    table, plan, reasons = fitting.training_set(settings, spec, window)
    uri, digest = fitting.write_training_set(settings.storage_uri, table)
    get_run_logger().info("%s rows x %s features in %s", table.num_rows, len(plan.columns), uri)
    _show_null_reasons(model, reasons)
    return TrainingSet(
        uri=uri,
        sha256=digest,
        rows=table.num_rows,
        train=Window(since=window.since, until=split),
        holdout=Window(since=split, until=window.until),
        plan=plan,
        null_reasons=reasons,
    )


@step("fit {model}")
def fit(settings: Settings, model: str, training_set: TrainingSet) -> Fitted:
    """Fit the spec's trainer. Safe to run twice: the file is named by its hash."""
    from tasks import fitting

    spec = load_spec(model)
    table = fitting.read_training_set(training_set.uri)
    train = fitting.part(table, spec.label, training_set.train)
    matrix = fitting.matrix_of(train, training_set.plan.columns)
    data = fitting.fit_xgboost(spec, matrix, fitting.labels_of(train))
    uri = settings.uri("fits", f"{storage.sha256(data)}.ubj")
    storage.write_atomic(uri, data)
    get_run_logger().info("%s trees from %s rows", spec.trainer.rounds, train.num_rows)
    return Fitted(uri=uri, training_rows=train.num_rows)


@step("score {model} on the holdout")
def score_holdout(model: str, training_set: TrainingSet, fitted: Fitted) -> Scorecard:
    """Return the holdout's metrics, overall and for each gated slice. It writes nothing."""
    from monitoring.performance import score
    from serving.runtimes.xgboost import XGBoostRuntime
    from tasks import fitting

    spec = load_spec(model)
    table = fitting.read_training_set(training_set.uri)
    holdout = fitting.part(table, spec.label, training_set.holdout)
    runtime = XGBoostRuntime(storage.read_bytes(fitted.uri), threads=0)
    predictions = runtime.predict(fitting.matrix_of(holdout, training_set.plan.columns))
    slices = {
        gate.by: holdout[gate.by].to_numpy(zero_copy_only=False) for gate in spec.gates if gate.by
    }
    card = score(spec.task, fitting.labels_of(holdout), predictions, slices=slices)
    get_run_logger().info("holdout %s: %s", training_set.holdout, card.metrics)
    return card


@step("check the gates of {model}")
def check_gates(model: str, card: Scorecard) -> tuple[GateResult, ...]:
    """Return what each gate says of the holdout. It writes nothing."""
    from registry import gates

    results = gates.check_gates(load_spec(model).gates, card)
    for result in results:
        get_run_logger().info("%s", result.sentence)
    return results


@step("build the bundle of {model}")
def build_bundle(
    settings: Settings,
    model: str,
    training_set: TrainingSet,
    *,
    fitted: Fitted,
    card: Scorecard,
    gates: tuple[GateResult, ...],
) -> str:
    """Return the digest of a bundle that was read back, loaded and proved on its golden rows.

    Safe to run twice: the same inputs give the same digest.
    """
    from serving.predictor import load_predictor
    from tasks.bundling import bundle_of

    manifest, files = bundle_of(
        load_spec(model), training_set, fitted=fitted, card=card, gates=gates
    )
    digest = bundle.write_bundle(settings.uri("bundles"), manifest, files)
    load_predictor(settings.uri("bundles"), digest)
    get_run_logger().info("bundle %s", digest)
    return digest


@step("register {model}")
def register(settings: Settings, model: str, digest: str) -> ModelVersion:
    """Register a bundle as a model version. Safe to run twice: one version a digest."""
    manifest = bundle.read_bundle(settings.uri("bundles"), digest).manifest
    lineage = manifest.lineage
    version = ModelRegistry(settings.registry_uri).register(
        model,
        bundle_uri=settings.uri("bundles", digest),
        digest=digest,
        metrics=manifest.metrics,
        parameters=manifest.parameters,
        tags={
            "feature_service": manifest.plan.feature_service,
            "definitions_sha256": manifest.plan.definitions_sha256,
            **{name: str(value) for name, value in lineage.model_dump().items()},
        },
    )
    get_run_logger().info("version %s of %s", version.version, model)
    return version


def _show_null_reasons(model: str, reasons: dict[str, dict[str, int]]) -> None:
    create_table_artifact(
        table=[{"view": view, **counts} for view, counts in reasons.items()],
        key=f"{model.replace('_', '-')}-null-reasons",
        description="Why values are missing from the training set, by feature view.",
    )
