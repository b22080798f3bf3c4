"""The one predict, for batch and online alike: a verified bundle, its transforms and its runtime.

Batch workers and the online server both call ``load_predictor``; nothing else loads a model. A
bundle takes no traffic before its every byte was checked, its transforms were found unchanged, and
its golden rows came out bit for bit as they did when it was built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.vectors import input_matrix
from headrace.bundle import MODEL, OUTPUT, Bundle, read_bundle
from headrace.errors import BundleRefused
from headrace.plan import FeaturePlan, pinned_transforms
from headrace.transform import Transform
from serving.errors import RuntimeFailed
from serving.runtimes.xgboost import XGBoostRuntime


@dataclass(frozen=True)
class Predictor:
    """A bundle that has proven itself."""

    bundle: Bundle
    transforms: list[Transform]
    runtime: XGBoostRuntime

    @property
    def digest(self) -> str:
        """The digest of its bundle."""
        return self.bundle.digest

    @property
    def plan(self) -> FeaturePlan:
        """What it reads, and in which order."""
        return self.bundle.manifest.plan

    @property
    def columns(self) -> tuple[str, ...]:
        """The model's input columns, in order."""
        return self.plan.columns

    def matrix(
        self, reads: Mapping[str, np.ndarray], request: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return the model's input: float32, shape (rows, columns).

        Args:
            reads: the value of each feature, by ``<view>__<feature>``; NaN is missing.
            request: the fields that came with each row.
        """
        return input_matrix(self.plan, self.transforms, reads, request)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Return the prediction of each row of ``matrix``: float32, shape (rows,)."""
        return self.runtime.predict(matrix)


def load_predictor(bundles_root: str, digest: str, *, threads: int = 1) -> Predictor:
    """Load a bundle and make it prove itself.

    Args:
        bundles_root: the folder or URL that holds ``<digest>/``.
        digest: which bundle.
        threads: how many cores one ``predict`` may use; 0: all.

    Raises:
        BundleRefused: if a byte differs, a transform has changed, the model cannot be loaded or
            does not fit its plan, or a golden row comes out different.
    """
    bundle = read_bundle(bundles_root, digest)
    transforms = pinned_transforms(bundle.manifest.plan, digest)
    try:
        runtime = XGBoostRuntime(bundle.files[MODEL], threads=threads)
    except RuntimeFailed as error:
        raise BundleRefused(digest, str(error)) from error
    predictor = Predictor(bundle, transforms, runtime)
    if runtime.columns != len(predictor.columns):
        reason = f"its model has {runtime.columns} inputs, its plan {len(predictor.columns)}"
        raise BundleRefused(digest, reason)
    _reproduce_golden(predictor)
    return predictor


def golden_table(columns: Sequence[str], matrix: np.ndarray, predictions: np.ndarray) -> pa.Table:
    """Return golden rows as a bundle keeps them: float32 columns and ``prediction``.

    Args:
        columns: the plan's columns.
        matrix: float32, shape (rows, columns).
        predictions: float32, shape (rows,); what the model answered for ``matrix``.
    """
    names = [*columns, OUTPUT]
    arrays = [*np.asarray(matrix, np.float32).T, np.asarray(predictions, np.float32)]
    # NaN stays NaN: a null would come back as another bit pattern.
    return pa.table([pa.array(np.ascontiguousarray(a)) for a in arrays], names=names)


def _reproduce_golden(predictor: Predictor) -> None:
    golden = _golden(predictor)
    matrix = np.column_stack([golden[name].to_numpy() for name in predictor.columns])
    wanted = golden[OUTPUT].to_numpy()
    try:
        given = predictor.predict(matrix)
    except RuntimeFailed as error:
        raise BundleRefused(predictor.digest, str(error)) from error
    differs = np.flatnonzero(given.view(np.uint32) != wanted.view(np.uint32))
    if len(differs):
        row = int(differs[0])
        raise BundleRefused(
            predictor.digest,
            f"golden row {row} gives {given[row]!r} here and gave {wanted[row]!r} when it was built"
            f" ({len(differs)} of {len(given)} rows differ)",
        )


def _golden(predictor: Predictor) -> pa.Table:
    digest, names = predictor.digest, [*predictor.columns, OUTPUT]
    try:
        golden = predictor.bundle.golden
    except pa.ArrowException as error:
        raise BundleRefused(digest, f"golden.arrow is not an Arrow file: {error}") from error
    if golden.schema != pa.schema([(name, pa.float32()) for name in names]):
        raise BundleRefused(digest, f"golden.arrow does not have the float32 columns {names}")
    if golden.num_rows == 0:
        raise BundleRefused(digest, "golden.arrow has no rows, so nothing is proven")
    return golden.combine_chunks()
