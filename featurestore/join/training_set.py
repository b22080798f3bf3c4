"""Join every feature that a plan reads to a table of rows: for training, and for a batch shard."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.columns import check_timestamps
from featurestore.join.certificate import Certificate, CertificateMaker, SourceRead, span_of
from featurestore.join.joining import ServiceJoin
from featurestore.join.object_columns import python_objects
from featurestore.join.pit import JoinedView
from featurestore.missing import Refusal, refusals
from featurestore.vectors import input_matrix, request_columns
from headrace.plan import NUMBERS, FeaturePlan, pinned_transforms
from headrace.transform import check_row_by_row


@dataclass(frozen=True)
class JoinedRows:
    """The model's input for each row, and how complete it is."""

    plan: FeaturePlan
    rows: pa.Table
    matrix: np.ndarray
    """float32, shape (rows, len(plan.columns)): row i belongs to row i of the table."""
    views: tuple[JoinedView, ...]
    sources: tuple[SourceRead, ...]

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """By view: how many rows have their value, and how many have none, by ``NullReason``."""
        named = zip(self.plan.views, self.views, strict=True)
        return {read.view: joined.counts for read, joined in named}

    @property
    def refused(self) -> list[Refusal]:
        """The rows that lack a feature which the plan says they must have."""
        if not self.plan.required:
            return []
        reads = read_columns(self.plan, self.views)
        return refusals(self.plan, reasons_of(self.plan, self.views), reads)

    def certificate(self, result: pa.Table) -> Certificate:
        """What ``result`` was made of, a table of these rows with their features.

        Args:
            result: as many rows, in the same order.
        """
        plan = self.plan
        maker = CertificateMaker(plan.views, plan.event_timestamp)
        maker.count(self.rows, self.views)
        maker.count_result(result)
        return maker.certificate(self.sources, plan=plan)


def join_features(
    rows: pa.Table, plan: FeaturePlan, offline_uri: str, *, digest: str = "in training"
) -> JoinedRows:
    """Return the input of each row: its features as they were known at its moment.

    Of each view's table only the columns of the plan and the time that the rows can use are read.

    Args:
        rows: has the join keys, ``plan.event_timestamp`` and the plan's request fields.
        plan: what to read.
        offline_uri: where the tables lie; ``settings.uri("offline")``.
        digest: the bundle that the plan belongs to, for the error.

    Raises:
        SchemaMismatch: if ``rows`` or a table lacks a column or has a wrong type.
        UnknownName: if a table is not there.
        BundleRefused: if a transform is not the pinned one.
        TransformRefused: if one is no function of each row alone.
    """
    return _join(rows, plan, offline_uri, digest=digest, explain=True)


def feature_matrix(
    rows: pa.Table, plan: FeaturePlan, offline_uri: str, *, digest: str
) -> np.ndarray:
    """The same matrix without the accounts, which cost more than a small join.

    Raises:
        SchemaMismatch, UnknownName, BundleRefused: as ``join_features``.
    """
    return _join(rows, plan, offline_uri, digest=digest, explain=False).matrix


def _join(
    rows: pa.Table, plan: FeaturePlan, offline_uri: str, *, digest: str, explain: bool
) -> JoinedRows:
    transforms = pinned_transforms(plan, digest)
    request = request_columns(plan, rows)
    moment = plan.event_timestamp
    check_timestamps("rows", rows.schema, [moment])
    service = ServiceJoin.open(offline_uri, plan.views, span_of(rows[moment]), fingerprint=explain)
    views = service.join(rows, moment, exact_reasons=explain)
    reads = read_columns(plan, views)
    matrix = input_matrix(plan, transforms, reads, request)
    if explain:  # in training: a model must not learn from what no server can compute
        given = {**request, **reads}
        for made in transforms:
            check_row_by_row(made, [given[name] for name in made.inputs])
    return JoinedRows(plan, rows, matrix, views, tuple(view.source for view in service.views))


def reasons_of(plan: FeaturePlan, views: Sequence[JoinedView]) -> dict[str, np.ndarray]:
    """By view the ``NullReason`` of each row."""
    return {read.view: view.reasons for read, view in zip(plan.views, views, strict=False)}


def read_columns(plan: FeaturePlan, views: Sequence[JoinedView]) -> dict[str, np.ndarray]:
    """The values of every feature of the plan, by column, as ``input_matrix`` takes them."""
    return {
        name: view.columns[name]
        if feature.dtype in NUMBERS
        else python_objects(view.columns[name], feature)
        for read, view in zip(plan.views, views, strict=True)
        for name, feature in zip(read.columns, read.features, strict=True)
    }
