"""Join every feature that a plan reads to a table of rows: for training, and for a batch shard."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import check_timestamps
from featurestore.offline import read_table
from featurestore.pit import NullReason, point_in_time_join
from featurestore.vectors import input_matrix, request_columns
from headrace.plan import FeaturePlan, ViewRead, pinned_transforms

_MOMENT = timedelta(microseconds=1)
_ANY = datetime(1970, 1, 1, tzinfo=UTC)  # where there are no rows, any moment will do


@dataclass(frozen=True)
class JoinedRows:
    """The model's input for each row, and how complete it is."""

    matrix: np.ndarray
    """float32, shape (rows, len(plan.columns)): row i belongs to row i of the table."""
    reasons: dict[str, dict[str, int]]
    """By view: how many rows have their value, and how many have none and why (``NullReason``).

    A value that lies before the first moment less the TTL, or after the last moment, is not read:
    an entity with no other values counts as NEVER_SEEN.
    """


def join_features(
    rows: pa.Table, plan: FeaturePlan, offline_uri: str, *, digest: str = "in training"
) -> JoinedRows:
    """Return the input of each row: its features as they were known at its moment.

    Of each view's table only the columns of the plan and the time that the rows can use are read,
    one view at a time.

    Args:
        rows: has the join keys, ``plan.event_timestamp`` and the plan's request fields.
        plan: what to read.
        offline_uri: where the tables lie; ``settings.uri("offline")``.
        digest: the bundle that the plan belongs to, for the error.

    Raises:
        SchemaMismatch: if ``rows`` or a table lacks a column or has a wrong type.
        UnknownName: if a table is not there.
        BundleRefused: if a transform is not the pinned one.
    """
    transforms = pinned_transforms(plan, digest)
    request = request_columns(plan, rows)
    check_timestamps("rows", rows.schema, [plan.event_timestamp])
    reads: dict[str, np.ndarray] = {}
    reasons: dict[str, dict[str, int]] = {}
    for view in plan.views:
        values = _values_in_reach(offline_uri, view, rows[plan.event_timestamp])
        joined = point_in_time_join(rows, values, view, timestamp=plan.event_timestamp)
        reads |= joined.columns
        reasons[view.view] = _counts(joined.reasons)
    return JoinedRows(input_matrix(plan, transforms, reads, request), reasons)


def _values_in_reach(offline_uri: str, view: ViewRead, moments: pa.ChunkedArray) -> pa.Table:
    """The rows of a view's table that rows at these moments may use."""
    columns = [*view.key_names, view.event_timestamp, view.created_timestamp]
    columns += [feature.name for feature in view.features]
    ends = pc.min_max(moments).as_py()
    first, last = ends["min"] or _ANY, ends["max"] or _ANY
    ttl = view.ttl_seconds
    return read_table(
        offline_uri,
        view.table,
        columns=columns,
        timestamp=view.event_timestamp,
        since=None if ttl is None else first - timedelta(seconds=ttl),
        until=last + _MOMENT,
        empty_ok=True,
    )


def _counts(reasons: np.ndarray) -> dict[str, int]:
    counts = np.bincount(reasons, minlength=len(NullReason)).tolist()
    return {reason.name: counts[reason] for reason in NullReason}
