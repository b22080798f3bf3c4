"""The features of a table of rows as they were known then: a table in, a table out. No Feast.

``historical_features`` joins what fits in memory; ``featurestore.join.out_of_core`` what does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.columns import TIMESTAMP, check_timestamps
from featurestore.freshness import STATUS_WORDS
from featurestore.join.certificate import Certificate, CertificateMaker, span_of
from featurestore.join.joining import ServiceJoin
from featurestore.join.pit import JoinedView, NullReason
from headrace.errors import SchemaMismatch
from headrace.plan import ViewRead

EVENT_TIME = "__event_timestamp"
"""Behind a view's name: the column with the event times of the values used."""
REASON = "__null_reason"
"""Behind a view's name: the column with why there is none; null where there is a value."""


@dataclass(frozen=True)
class HistoricalFeatures:
    """Rows with their features, and what these were made of."""

    table: pa.Table
    """The rows as they came, and the features: ``<view>__<feature>`` in the declared types."""
    certificate: Certificate


def historical_features(
    rows: pa.Table,
    views: Sequence[ViewRead],
    offline_uri: str,
    *,
    timestamp: str,
    explain: bool = False,
) -> HistoricalFeatures:
    """Return each row with its features as they were known at its moment.

    One row comes out for each that goes in, in the same order.

    Args:
        rows: has the views' join keys and ``timestamp``, in any order, with any duplicates.
        views: what to read; ``Catalog.views``, or the ``views`` of a feature plan.
        offline_uri: where the tables lie; ``settings.uri("offline")``.
        timestamp: the column with the moment of each row, ``timestamp[us, tz=UTC]``.
        explain: add, for each view, the event times of the values used and the reasons of nulls.

    Raises:
        SchemaMismatch: if ``rows`` or a table lacks a column, or has one of a wrong type.
        UnknownName: if a table is not there.
        StorageFailed: if a table cannot be read or is damaged.
    """
    check_timestamps("rows", rows.schema, [timestamp])
    span = span_of(rows[timestamp])
    service = ServiceJoin.open(offline_uri, views, span, as_arrow=True)
    found = service.join(rows, timestamp)
    table = with_features(rows, views, found, explain=explain)
    maker = CertificateMaker(views, timestamp)
    maker.count(rows, found)
    maker.count_result(table)
    return HistoricalFeatures(table, maker.certificate([view.source for view in service.views]))


def with_features(
    rows: pa.Table, views: Sequence[ViewRead], found: Sequence[JoinedView], *, explain: bool
) -> pa.Table:
    """The rows with the columns found for them.

    Raises:
        SchemaMismatch: if a feature's column is already among those of ``rows``.
    """
    table = rows
    for view, joined in zip(views, found, strict=True):
        columns = {name: pa.array(column) for name, column in joined.columns.items()}
        if explain:
            columns[view.view + EVENT_TIME] = pa.array(joined.event_times).cast(TIMESTAMP)
            columns[view.view + REASON] = _named(joined.reasons)
        for name, column in columns.items():
            if name in table.column_names:
                raise SchemaMismatch("rows", [f"column {name} is also a feature; rename it"])
            table = table.append_column(name, column)
    return table


def _named(reasons: np.ndarray) -> pa.Array:
    names = pa.array([word.upper() for word in STATUS_WORDS])
    return names.take(pa.array(reasons, mask=reasons == NullReason.PRESENT))
