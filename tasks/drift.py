"""The steps of a drift check: profile a window, compare it, draw the report."""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.logging import get_run_logger

from featurestore.join.training_set import feature_matrix
from featurestore.vectors import check_request
from headrace import storage
from headrace.bundle import OUTPUT, REFERENCE, read_bundle
from headrace.errors import BundleRefused, HeadraceError
from headrace.settings import Settings
from headrace.spec import Part, load_spec
from headrace.window import Window
from monitoring.drift import DriftReport, compare_profiles
from monitoring.errors import ProfileRefused
from monitoring.profile import Profile, profile_like
from serving.predictor import load_predictor
from tasks import training_sets
from tasks.logged import logged_rows
from tasks.scoring_table import scoring_rows
from tasks.step import step

Source = Literal["table", "log"]
"""Where the current window comes from: the scoring table, or the server's inference log."""


class TrainingSetGone(HeadraceError):
    """A bundle whose training set is no longer on storage."""

    def __init__(self, uri: str, digest: str) -> None:
        self.uri, self.digest = uri, digest
        super().__init__(
            f"{uri} is gone, which bundle {digest[:12]} was trained on and the report is drawn "
            "from: restore it, or check without the report (--report false)."
        )


class Current(Part):
    """The current window: which rows, and the bundle whose inputs and predictions they are."""

    window: Window
    digest: str
    endpoint: str
    source: Source


@step("check the drift of {model} {current.window}")
def compare_window(settings: Settings, model: str, current: Current) -> DriftReport:
    """Compare a window with the bundle's reference profile. It writes nothing but its artifact."""
    bundle = read_bundle(settings.uri("bundles"), current.digest)
    try:
        reference = Profile.from_bytes(bytes(bundle.files[REFERENCE]))
    except ProfileRefused as error:
        raise BundleRefused(
            current.digest, f"{REFERENCE} is no drift profile: {error.reason}"
        ) from error
    columns = _columns(current_rows(settings, model, current))
    policy = load_spec(model).drift
    report = compare_profiles(reference, profile_like(reference, columns), policy)
    create_table_artifact(
        table=[
            {"column": c.name, "psi": round(c.psi, 4), "js": round(c.js, 4), "drifted": c.drifted}
            for c in report.columns
        ],
        key=f"{model.replace('_', '-')}-drift",
        description=report.sentence,
    )
    get_run_logger().info("%s", report.sentence)
    return report


@step("draw the drift report of {model} {current.window}")
def draw_report(settings: Settings, model: str, current: Current) -> str:
    """Write Evidently's HTML report and return its address. Safe to run twice: it is replaced."""
    from monitoring.report import render_report

    get_run_logger().info("drawing the report")
    html = render_report(
        reference_rows(settings, model, current.digest),
        current_rows(settings, model, current),
        policy=load_spec(model).drift,
    )
    uri = settings.uri("reports", model, f"{current.window}-{current.digest[:12]}.html")
    storage.write_atomic(uri, html)
    create_link_artifact(
        link=Path(uri).as_uri() if storage.is_local(uri) else uri,
        key=f"{model.replace('_', '-')}-drift-report",
        description="Evidently's report, drawn from a sample; the profile makes the decision.",
    )
    return uri


def current_rows(settings: Settings, model: str, current: Current) -> pa.Table:
    """The model's inputs and predictions in a window, as the bundle computes or computed them."""
    predictor = load_predictor(settings.uri("bundles"), current.digest, threads=0)
    window = current.window
    if current.source == "log":
        log = logged_rows(settings, current.endpoint, window, otherwise=", or --source table")
        return log.select([*predictor.columns, OUTPUT])
    rows = scoring_rows(settings, model, window)
    check_request(predictor.plan, rows, load_spec(model).scoring_table)
    offline = settings.uri("offline")
    matrix = feature_matrix(rows, predictor.plan, offline, digest=predictor.digest)
    return _as_table(predictor.columns, matrix, predictor.predict(matrix))


def reference_rows(settings: Settings, model: str, digest: str) -> pa.Table:
    """The rows a bundle was trained on, with what it predicts for them.

    Raises:
        TrainingSetGone: if its training set is no longer on storage.
    """
    predictor = load_predictor(settings.uri("bundles"), digest, threads=0)
    lineage = predictor.bundle.manifest.lineage
    trained = Window(since=lineage.trained_from, until=lineage.trained_until)
    uri = settings.uri("training_sets", f"{lineage.training_set_sha256}.parquet")
    try:
        table = training_sets.read_training_set(uri)
    except FileNotFoundError as error:
        raise TrainingSetGone(uri, digest) from error
    table = training_sets.part(table, load_spec(model).label, trained)
    matrix = training_sets.matrix_of(table, predictor.columns)
    return _as_table(predictor.columns, matrix, predictor.predict(matrix))


def _as_table(names: tuple[str, ...], matrix: np.ndarray, predictions: np.ndarray) -> pa.Table:
    columns = {name: matrix[:, position] for position, name in enumerate(names)}
    return pa.table({**columns, OUTPUT: predictions})


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in table.column_names}
