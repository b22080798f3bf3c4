"""The steps from labels to a registered model version.

Between steps travel addresses and small facts, never tables: each step reads what it needs and
writes what it makes under a name that says what it holds.
"""

from datetime import datetime

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from headrace import bundle
from headrace.scorecard import Scorecard
from headrace.settings import Settings
from headrace.spec import load_spec
from registry.gates import GateResult
from registry.models import ModelRegistry, ModelVersion
from tasks import fitting, training_sets
from tasks.fitting import Fitted
from tasks.step import step
from tasks.training_sets import TrainingSet


@step("ask the registry for {model}")
def ask_registry(settings: Settings, model: str) -> None:
    """Find out that the registry answers before any work is done for it. It writes nothing.

    Raises:
        RegistryUnreachable: if it does not.
    """
    champion = ModelRegistry(settings.registry_uri).version_by_alias(model, "champion")
    found = f"version {champion.version} is the champion" if champion else "no champion yet"
    get_run_logger().info("%s: %s", model, found)


@step("build the training set of {model}")
def build_training_set(
    settings: Settings, model: str, *, since: datetime | None, until: datetime | None
) -> TrainingSet:
    """Join labels and features point in time. Safe to run twice: the file is named by its hash."""
    made = training_sets.make_training_set(settings, load_spec(model), since=since, until=until)
    get_run_logger().info(
        "%s rows x %s features in %s", made.rows, len(made.plan.columns), made.uri
    )
    for reason, rows in made.left_out.items():
        get_run_logger().warning("%s rows are left out: %s", rows, reason)
    _show_null_reasons(model, made.null_reasons)
    return made


@step("fit {model}")
def fit(settings: Settings, model: str, training_set: TrainingSet) -> Fitted:
    """Fit the spec's trainer. Safe to run twice: the file is named by its hash."""
    spec = load_spec(model)
    fitted = fitting.fit(settings, spec, training_set)
    get_run_logger().info("%s fitted on %s rows", spec.trainer.kind, fitted.training_rows)
    return fitted


@step("score {model} on the holdout")
def score_holdout(model: str, training_set: TrainingSet, fitted: Fitted) -> Scorecard:
    """Return the holdout's metrics, overall and for each gated slice. It writes nothing."""
    card = fitting.score_holdout(load_spec(model), training_set, fitted)
    get_run_logger().info("holdout %s: %s", training_set.holdout, card.metrics)
    return card


@step("check the gates of {model}")
def check_gates(model: str, card: Scorecard) -> tuple[GateResult, ...]:
    """Return what each gate says of the holdout. It writes nothing."""
    from registry import gates

    results: tuple[GateResult, ...] = gates.check_gates(load_spec(model).gates, card)
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
            "feature_service": manifest.plan.feature_service or "",
            "definitions_sha256": manifest.plan.definitions_sha256,
            "reads_sha256": manifest.plan.reads_sha256,
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
