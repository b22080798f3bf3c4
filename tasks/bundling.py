"""What goes into a bundle, from a fitted model and its training set; no Prefect."""

import numpy as np

from headrace import storage
from headrace.bundle import (
    CARD,
    GOLDEN,
    OUTPUT,
    REFERENCE,
    BundleManifest,
    Lineage,
    arrow_bytes,
    model_file,
)
from headrace.scorecard import Scorecard
from headrace.spec import ModelSpec
from monitoring.profile import reference_profile
from registry.gates import GateResult
from registry.model_card import render_card
from serving.predictor import golden_table
from serving.runtimes.memory import FittingBatches
from tasks.fitting import Fitted, code_revision, open_fitted
from tasks.training_sets import TrainingSet, matrix_of, part, read_training_set

GOLDEN_ROWS = 64
"""Enough rows to meet most branches, few enough to check in a blink."""


def bundle_of(
    spec: ModelSpec,
    training_set: TrainingSet,
    *,
    fitted: Fitted,
    card: Scorecard,
    gates: tuple[GateResult, ...],
) -> tuple[BundleManifest, dict[str, bytes]]:
    """Return the manifest and the files of a bundle; equal inputs give equal bytes."""
    plan = training_set.plan
    train = part(read_training_set(training_set.uri), spec.label, training_set.train)
    matrix = matrix_of(train, plan.columns)
    runtime = open_fitted(spec, training_set, fitted)
    predictions = FittingBatches(runtime).predict(matrix)
    runtime.close()

    columns = {name: matrix[:, position] for position, name in enumerate(plan.columns)}
    golden = np.linspace(0, len(matrix) - 1, min(GOLDEN_ROWS, len(matrix))).astype(int)
    lineage = Lineage(
        code_revision=code_revision(),
        training_set_sha256=training_set.sha256,
        certificate_sha256=training_set.certificate_sha256,
        training_rows=fitted.training_rows,
        trained_from=training_set.train.since,
        trained_until=training_set.train.until,
        tested_until=training_set.holdout.until,
    )
    files = {
        model_file(fitted.runtime): storage.read_bytes(fitted.uri),
        GOLDEN: arrow_bytes(golden_table(plan.columns, matrix[golden], predictions[golden])),
        REFERENCE: reference_profile({**columns, OUTPUT: predictions}).to_bytes(),
        CARD: render_card(spec, plan=plan, lineage=lineage, card=card, gates=gates).encode(),
    }
    manifest = BundleManifest(
        model=spec.name,
        task=spec.task,
        runtime=fitted.runtime,
        plan=plan,
        drift=spec.drift,
        lineage=lineage,
        metrics=card.metrics,
        parameters=spec.trainer.facts,
        files={},
    )
    return manifest, files
