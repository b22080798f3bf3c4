"""The steps that decide what an endpoint runs, and move it there."""

from datetime import datetime

import numpy as np
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from headrace import bundle, release
from headrace.errors import SpecRefused, UnknownName
from headrace.release import Release
from headrace.scorecard import Comparison
from headrace.settings import Settings
from headrace.spec import load_spec
from registry.decision import Decision
from registry.decision import decide as decide_promotion
from registry.gates import GateResult
from registry.models import ModelRegistry, ModelVersion
from serving.predictor import load_predictor
from tasks import training_sets
from tasks.step import step
from tasks.training_sets import TrainingSet

CHAMPION = "champion"
CHALLENGER = "challenger"


@step("find the version of {model}")
def find_version(settings: Settings, model: str, version: int | None) -> ModelVersion:
    """Return a model version, the newest if none is named. It writes nothing.

    Raises:
        UnknownName: if there is no such version; the error lists those there are.
    """
    versions = ModelRegistry(settings.registry_uri).versions(model)
    if not versions:
        raise UnknownName("registered version of", model, [])
    by_number = {found.version: found for found in versions}
    wanted = max(by_number) if version is None else version
    if wanted not in by_number:
        raise UnknownName(f"version of {model}", str(wanted), map(str, by_number))
    return by_number[wanted]


@step("verify bundle {digest:.12}")
def verify_bundle(settings: Settings, digest: str) -> bundle.BundleManifest:
    """Check every byte and reproduce the golden rows. It writes nothing.

    Raises:
        BundleRefused: if either does not hold; nothing takes traffic then.
    """
    predictor = load_predictor(settings.uri("bundles"), digest)
    get_run_logger().info(
        "bundle %s: %s files and %s golden rows hold",
        digest[:12],
        len(predictor.bundle.files),
        predictor.bundle.golden.num_rows,
    )
    return predictor.bundle.manifest


@step("look up what {endpoint} runs")
def look_up_release(settings: Settings, endpoint: str) -> Release | None:
    """The endpoint's newest revision; None if it was never released. It writes nothing."""
    return release.current_release(settings.storage_uri, endpoint)


@step("move {endpoint} to version {version.version}")
def promote(
    settings: Settings, endpoint: str, *, version: ModelVersion, expected: int, by: str, reason: str
) -> Release:
    """Move the release, then the registry's alias.

    Safe to run twice: an endpoint that already runs the version is left where it is. The release
    is what servers follow; a registry that is behind is set right by the next run.
    """
    root = settings.storage_uri
    current = release.current_release(root, endpoint)
    if current is None or current.champion != version.digest:
        current = release.move_release(
            root, endpoint, champion=version.digest, expected=expected, by=by, reason=reason
        )
    ModelRegistry(settings.registry_uri).set_alias(version.name, CHAMPION, version.version)
    get_run_logger().info("%s revision %s: %s", endpoint, current.revision, reason)
    return current


@step("compare {model} with its champion")
def compare_with_champion(
    settings: Settings, model: str, *, champion: str, challenger: str, holdout: TrainingSet
) -> Comparison:
    """Score both bundles on the challenger's holdout. It writes nothing.

    Neither has seen it: the challenger's training ended before it, and so must the champion's.

    Raises:
        ChampionSawHoldout: if the champion was trained on rows of the holdout.
    """
    from monitoring.performance import compare_predictions

    spec = load_spec(model)
    table = training_sets.read_training_set(holdout.uri)
    rows = training_sets.part(table, spec.label, holdout.holdout)
    predictions = {}
    for name, digest in ((CHAMPION, champion), (CHALLENGER, challenger)):
        predictor = load_predictor(settings.uri("bundles"), digest, threads=0)
        _refuse_seen(model, name, predictor.bundle.manifest, holdout)
        matrix = training_sets.matrix_of(rows, predictor.bundle.manifest.plan.columns)
        predictions[name] = predictor.predict(matrix)
    moments = rows[spec.label.event_timestamp].to_numpy()
    return compare_predictions(
        spec.rollout.metric,
        training_sets.labels_of(rows),
        predictions[CHAMPION],
        predictions[CHALLENGER],
        blocks=moments.astype("datetime64[D]").astype(np.int64),
        confidence=spec.rollout.confidence,
    )


@step("decide about {version.name} version {version.version}")
def decide(
    settings: Settings,
    version: ModelVersion,
    *,
    comparison: Comparison,
    gates: tuple[GateResult, ...],
) -> Decision:
    """Decide by the spec's rollout policy and write down why, either way.

    Safe to run twice: the same facts give the same decision.
    """
    decision = decide_promotion(comparison, load_spec(version.name).rollout, gates)
    registry = ModelRegistry(settings.registry_uri)
    registry.set_alias(version.name, CHALLENGER, version.version)
    registry.record_decision(
        version.name,
        version.version,
        decision="promote" if decision.promote else "keep champion",
        reason=decision.reason,
        facts=comparison.model_dump(),
    )
    create_markdown_artifact(
        markdown=_told(version, comparison, decision),
        key=f"{version.name.replace('_', '-')}-decision",
        description="Why the challenger was promoted, or not.",
    )
    get_run_logger().info("%s", decision.reason)
    return decision


class ChampionSawHoldout(SpecRefused):
    """A comparison on rows that one of the two was trained on."""

    def __init__(self, model: str, which: str, trained_until: datetime, begins: datetime) -> None:
        super().__init__(
            model,
            f"the {which} was trained until {trained_until:%Y-%m-%d}, after the holdout begins "
            f"({begins:%Y-%m-%d}); compare on later data (--until)",
        )


def _refuse_seen(
    model: str, which: str, manifest: bundle.BundleManifest, holdout: TrainingSet
) -> None:
    trained_until = manifest.lineage.trained_until
    if trained_until > holdout.holdout.since:
        raise ChampionSawHoldout(model, which, trained_until, holdout.holdout.since)


def _told(version: ModelVersion, comparison: Comparison, decision: Decision) -> str:
    verdict = "**promote**" if decision.promote else "**keep the champion**"
    return (
        f"# {version.name} version {version.version}: {verdict}\n\n{decision.reason}\n\n"
        f"| {comparison.metric} on {comparison.rows:,} rows | |\n| --- | --- |\n"
        f"| champion | {comparison.champion:.4f} |\n"
        f"| challenger | {comparison.challenger:.4f} |\n"
        f"| gain | {comparison.gain:+.4f} "
        f"({comparison.confidence:.0%}: {comparison.low:+.4f} to {comparison.high:+.4f}) |\n"
    )
