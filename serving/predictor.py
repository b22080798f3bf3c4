"""The one predict, for batch and online alike: a verified bundle, its transforms and its runtime.

Batch workers and the online server both call ``load_predictor``; nothing else loads a model. A
bundle takes no traffic before its every byte was checked, its transforms were found unchanged, and
its golden rows came out bit for bit as they did when it was built. (On a GPU, which adds up in
another order, they must come out within float32's rounding.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from featurestore.vectors import input_matrix
from headrace.bundle import OUTPUT, Bundle, read_bundle
from headrace.errors import BundleRefused
from headrace.plan import FeaturePlan, pinned_transforms
from headrace.transform import Transform
from serving.errors import RuntimeFailed
from serving.explanations.explanation import Explanation
from serving.explanations.kernel_shap import kernel_shap
from serving.explanations.tree_shap import Trees, tree_shap
from serving.runtimes.device import Device, DeviceChoice
from serving.runtimes.memory import FittingBatches
from serving.runtimes.runtime import Opening, Runtime, open_runtime

_DEEPEST = 4
"""How many ensembles may lie inside each other."""
_BACKGROUND_ROWS = 32
"""The golden rows that explanations without trees are made against; the cost is in proportion."""
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
"""How far a golden row may be off on a GPU: a few hundred roundings of float32 in a row."""


@dataclass(frozen=True)
class Predictor:
    """A bundle that has proven itself."""

    bundle: Bundle
    transforms: list[Transform]
    runtime: Runtime
    batches: FittingBatches

    @property
    def digest(self) -> str:
        """The digest of its bundle."""
        return self.bundle.digest

    @property
    def plan(self) -> FeaturePlan:
        """What it reads, and in which order."""
        return self.bundle.manifest.plan

    @cached_property  # asked for by every request
    def columns(self) -> tuple[str, ...]:
        """The model's input columns, in order."""
        return self.plan.columns

    @property
    def device(self) -> Device:
        """Where its model computes."""
        return self.runtime.device

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
        """Return the prediction of each row of ``matrix``: float32, shape (rows,).

        What does not fit into memory at once is computed in smaller batches.
        """
        return self.batches.predict(matrix)

    def explain(self, matrix: np.ndarray) -> Explanation:
        """Return how far each input moved the prediction of each row of ``matrix``.

        Exact TreeSHAP for trees, KernelSHAP against the golden rows for every other runtime.

        Args:
            matrix: float32, shape (rows, columns); NaN is missing.

        Raises:
            RuntimeFailed: as ``predict``.
        """
        if isinstance(self.runtime, Trees):
            return tree_shap(self.runtime, matrix)
        return kernel_shap(self.predict, matrix, self.background)

    @cached_property
    def background(self) -> np.ndarray:
        """Some golden rows, which stand for "not known" in explanations: float32."""
        rows = _inputs(_golden(self.bundle))
        chosen = np.unique(np.linspace(0, len(rows) - 1, _BACKGROUND_ROWS).astype(int))
        return np.ascontiguousarray(rows[chosen])

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self.runtime.close()


def load_predictor(
    bundles_root: str,
    digest: str,
    *,
    threads: int = 1,
    device: DeviceChoice = "cpu",
    memory_share: float = 0.8,
) -> Predictor:
    """Load a bundle and make it prove itself.

    Args:
        bundles_root: the folder or URL that holds ``<digest>/``.
        digest: which bundle.
        threads: how many cores one ``predict`` may use; 0: all.
        device: where to compute; ``auto``: on a GPU where there is one that the library can use.
        memory_share: the share of a GPU's memory that the model may take.

    Raises:
        BundleRefused: if a byte differs, a transform has changed, the model cannot be loaded or
            does not fit its plan, or a golden row comes out different; a member of an ensemble is
            held to the same.
        DeviceMissing: if ``cuda`` was asked for and cannot be used.
    """

    def load(digest: str, inside: tuple[str, ...] = ()) -> Predictor:
        bundle = read_bundle(bundles_root, digest)
        transforms = pinned_transforms(bundle.manifest.plan, digest)
        golden = _golden(bundle)
        opening = Opening(
            columns=bundle.manifest.plan.columns,
            member=lambda member: load(member, _within(inside, digest, member)),
            rows=_inputs(golden),
            threads=threads,
            device=device,
            memory_share=memory_share,
        )
        try:
            runtime = open_runtime(bundle.manifest.runtime, bundle.model, opening)
        except RuntimeFailed as error:
            raise BundleRefused(digest, str(error)) from error
        predictor = Predictor(bundle, transforms, runtime, FittingBatches(runtime))
        _check_width(predictor)
        _reproduce(predictor, golden)
        return predictor

    return load(digest)


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


def _within(inside: tuple[str, ...], digest: str, member: str) -> tuple[str, ...]:
    """The bundles around ``member``, which must not be one of them."""
    around = (*inside, digest)
    if member in around:
        raise BundleRefused(digest, f"it is a member of itself, by {member[:12]}")
    if len(around) > _DEEPEST:
        raise BundleRefused(digest, f"it lies in {len(around)} ensembles; {_DEEPEST} is the most")
    return around


def _check_width(predictor: Predictor) -> None:
    have, wanted = predictor.runtime.columns, len(predictor.columns)
    if have != wanted:
        reason = f"its model has {have} inputs, its plan {wanted}"
        raise BundleRefused(predictor.digest, reason)


def _reproduce(predictor: Predictor, golden: pa.Table) -> None:
    wanted = _values(golden, OUTPUT)
    try:
        given = predictor.predict(_inputs(golden))
    except RuntimeFailed as error:
        raise BundleRefused(predictor.digest, str(error)) from error
    if predictor.device == "cpu":
        same = given.view(np.uint32) == wanted.view(np.uint32)
    else:
        same = np.isclose(given, wanted, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    differs = np.flatnonzero(~same)
    if len(differs):
        row = int(differs[0])
        raise BundleRefused(
            predictor.digest,
            f"golden row {row} gives {given[row]!r} here and gave {wanted[row]!r} when it was built"
            f" ({len(differs)} of {len(given)} rows differ)",
        )


def _inputs(golden: pa.Table) -> np.ndarray:
    names = [name for name in golden.column_names if name != OUTPUT]
    return np.column_stack([_values(golden, name) for name in names])


def _values(golden: pa.Table, name: str) -> np.ndarray:
    # Arrow's own to_numpy imports pandas where that is installed: 40 MB and half a second.
    return np.from_dlpack(golden[name].chunk(0))


def _golden(bundle: Bundle) -> pa.Table:
    digest, names = bundle.digest, [*bundle.manifest.plan.columns, OUTPUT]
    try:
        golden = bundle.golden
    except pa.ArrowException as error:
        raise BundleRefused(digest, f"golden.arrow is not an Arrow file: {error}") from error
    if golden.schema != pa.schema([(name, pa.float32()) for name in names]):
        raise BundleRefused(digest, f"golden.arrow does not have the float32 columns {names}")
    if any(column.null_count for column in golden.columns):
        raise BundleRefused(digest, "golden.arrow has null values; missing is NaN there")
    if golden.num_rows == 0:
        raise BundleRefused(digest, "golden.arrow has no rows, so nothing is proven")
    return golden.combine_chunks()
