"""A stacked model: a bundle of its own, whose inputs are what the members of an ensemble predict.

It has no feature view: its plan names the members, and the columns that it takes beside them, as
request fields. The ensemble becomes a graph in which the members feed it.
"""

import numpy as np

from headrace.bundle import (
    CARD,
    GOLDEN,
    OUTPUT,
    REFERENCE,
    BundleManifest,
    Lineage,
    arrow_bytes,
    model_file,
    write_bundle,
)
from headrace.errors import SpecRefused
from headrace.plan import FeaturePlan
from headrace.settings import Settings
from headrace.spec import EnsembleTrainer, ModelSpec, RequestField
from headrace.trainers import FittedTrainer
from monitoring.profile import reference_profile
from serving.predictor import golden_table
from serving.runtimes.graph import BundleStep, GraphDocument
from serving.runtimes.runtime import Opening, open_runtime
from tasks.fitters import alone
from tasks.fitters.checked import no_member
from tasks.training_sets import TrainingSet

GOLDEN_ROWS = 64
STACKED = "stacked"
"""The node of the stacked model."""


def fit(
    settings: Settings,
    spec: ModelSpec,
    trainer: EnsembleTrainer,
    *,
    training_set: TrainingSet,
    digests: list[str],
    given: np.ndarray,
    matrix: np.ndarray,
    labels: np.ndarray,
) -> bytes:
    """Fit the stacked model, write its bundle, and return ``graph.json``.

    Args:
        settings: where bundles lie.
        spec: the ensemble.
        trainer: its members, the trainer of the stacked model, and what else that takes.
        training_set: its plan and windows.
        digests: the members' bundles.
        given: what they predict, float32, shape (rows, members).
        matrix: the ensemble's inputs in the same rows, float32, shape (rows, columns).
        labels: float32, shape (rows,).

    Raises:
        SpecRefused: if a column is none of the ensemble's, or the model cannot be fitted.
    """
    assert trainer.by is not None
    plan, names = training_set.plan, [member.name for member in trainer.members]
    if unknown := sorted(set(trainer.columns) - set(plan.columns)):
        have = ", ".join(plan.columns)
        raise SpecRefused(
            spec.name, f"trainer.columns names {unknown[0]!r}, which is none of {have}"
        )
    if both := sorted({*names, STACKED} & set(plan.columns)):
        raise SpecRefused(spec.name, f"member {both[0]!r} has the name of a column; name a digest")
    places = [plan.columns.index(name) for name in trainer.columns]
    rows = np.column_stack([given, matrix[:, places]]).astype(np.float32)
    columns = [*names, *trainer.columns]
    model = alone.fit(spec, trainer.by, rows, labels)
    digest = write_bundle(
        settings.uri("bundles"),
        _manifest(spec, trainer.by, training_set, columns, len(rows)),
        _files(spec.name, trainer.by, columns, rows=rows, model=model),
    )
    members = [BundleStep(name=n, digest=d) for n, d in zip(names, digests, strict=True)]
    nodes = (*members, BundleStep(name=STACKED, digest=digest))
    return GraphDocument(nodes=nodes, output=STACKED).model_dump_json(indent=1).encode()


def _manifest(
    spec: ModelSpec,
    trainer: FittedTrainer,
    training_set: TrainingSet,
    columns: list[str],
    rows: int,
) -> BundleManifest:
    from tasks.fitting import code_revision

    plan = training_set.plan
    fields = tuple(
        RequestField(name=name, description=f"what {name} gives for the row") for name in columns
    )
    return BundleManifest(
        model=spec.name,
        task=spec.task,
        runtime=trainer.runtime,
        plan=FeaturePlan(
            project=plan.project,
            feature_service=None,
            definitions_sha256=plan.definitions_sha256,
            event_timestamp=plan.event_timestamp,
            views=(),
            request=fields,
            inputs_from_request=tuple(columns),
            transforms=(),
        ),
        drift=spec.drift,
        lineage=Lineage(
            code_revision=code_revision(),
            training_set_sha256=training_set.sha256,
            certificate_sha256=training_set.certificate_sha256,
            training_rows=rows,
            trained_from=training_set.train.since,
            trained_until=training_set.train.until,
            tested_until=training_set.holdout.until,
        ),
        metrics={},
        parameters=trainer.facts,
        files={},
    )


def _files(
    name: str, trainer: FittedTrainer, columns: list[str], *, rows: np.ndarray, model: bytes
) -> dict[str, bytes]:
    golden = rows[np.linspace(0, len(rows) - 1, min(GOLDEN_ROWS, len(rows))).astype(int)]
    opening = Opening(columns=tuple(columns), member=no_member, rows=golden)
    runtime = open_runtime(trainer.runtime, model, opening)
    predictions, golden_predictions = runtime.predict(rows), runtime.predict(golden)
    runtime.close()
    profiled = {name: rows[:, place] for place, name in enumerate(columns)}
    card = f"# {name}: the stacked model\n\nIt takes {', '.join(columns)}.\n"
    return {
        model_file(trainer.runtime): model,
        GOLDEN: arrow_bytes(golden_table(columns, golden, golden_predictions)),
        REFERENCE: reference_profile({**profiled, OUTPUT: predictions}).to_bytes(),
        CARD: card.encode(),
    }
