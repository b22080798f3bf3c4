"""Replay logged requests: what the point-in-time join says now of rows that were answered then.

The rows are as ``monitoring.inference_log`` writes them; the result has the same columns, so that
``monitoring.skew`` can lay the two side by side.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP, floats
from featurestore.freshness import STATUS_WORDS
from featurestore.join.certificate import span_of
from featurestore.join.joining import ServiceJoin
from featurestore.offline.tables import read_table
from featurestore.vectors import input_matrix, request_columns
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan, ViewRead, pin
from headrace.transform import find_transform

_ARROW = {"float64": pa.float64(), "int64": pa.int64(), "string": pa.string()}
_ARROW["timestamp"] = TIMESTAMP


@dataclass(frozen=True)
class Replay:
    """What the join says of logged rows."""

    joined: pa.Table
    """The plan's columns, and for each view ``event_time__<view>`` and ``status__<view>``; the
    status is a ``NullReason`` in small letters."""
    recomputed: dict[str, np.ndarray]
    """By output column: each transform of the logged inputs, as this process computes it; left out
    where an input is not in the log. float64, shape (rows,)."""
    changed_transforms: tuple[str, ...]
    """Those whose source in this process is not the one that the plan pins."""


def replay(log: pa.Table, plan: FeaturePlan, offline_uri: str) -> Replay:
    """Join the features of logged rows, each at its own moment.

    Args:
        log: rows with keys and request fields, whose features were read.
        plan: that of the bundle which answered them.
        offline_uri: where the tables lie; ``settings.uri("offline")``.

    Raises:
        SchemaMismatch: if the log lacks a column, or a table has another than its view says.
        UnknownName: if a table or a transform is not there.
        StorageFailed: if a table cannot be read.
    """
    rows = _request_rows(log, plan)
    request = request_columns(plan, rows)
    moments = rows[plan.event_timestamp]
    service = ServiceJoin.open(offline_uri, plan.views, span_of(moments), fingerprint=False)
    views = service.join(rows, plan.event_timestamp)
    reads = {name: column for view in views for name, column in view.columns.items()}
    transforms = [find_transform(wanted.name) for wanted in plan.transforms]
    matrix = input_matrix(plan, transforms, reads, request)
    columns = {name: pa.array(matrix[:, place]) for place, name in enumerate(plan.columns)}
    names = pa.array(STATUS_WORDS)
    for read, found in zip(plan.views, views, strict=True):
        columns[f"event_time__{read.view}"] = pa.array(found.event_times).cast(TIMESTAMP)
        columns[f"status__{read.view}"] = names.take(pa.array(found.reasons))
    logged = {name: floats(log[name]) for view in plan.views for name in view.number_columns}
    return Replay(
        joined=pa.table(columns),
        recomputed={
            transform.output: transform(*({**request, **logged}[name] for name in transform.inputs))
            for transform in transforms
            if set(transform.inputs) <= request.keys() | logged.keys()
        },
        changed_transforms=tuple(
            wanted.name
            for have, wanted in zip(transforms, plan.transforms, strict=True)
            if pin(have) != wanted
        ),
    )


def versions(offline_uri: str, view: ViewRead, log: pa.Table, joined: pa.Table) -> pa.Table:
    """The rows of a view's table of the time that either side has used.

    Raises:
        UnknownName, SchemaMismatch, StorageFailed: as ``read_table``.
    """
    events = [side[f"event_time__{view.view}"].cast(TIMESTAMP) for side in (log, joined)]
    used = pc.drop_null(pa.chunked_array([chunk for side in events for chunk in side.chunks]))
    columns = [*view.key_names, *view.timestamps, *(feature.name for feature in view.features)]
    found = read_table(
        offline_uri,
        view.table,
        columns=list(dict.fromkeys(columns)),
        timestamp=view.event_timestamp,
        since=pc.min(used).as_py(),
        empty_ok=True,
    )
    return found.filter(pc.is_in(found[view.event_timestamp], value_set=used.combine_chunks()))


def _request_rows(log: pa.Table, plan: FeaturePlan) -> pa.Table:
    """The rows as they were asked: keys, the moment, and the request fields in their types."""
    types = {field.name: _ARROW[field.dtype] for field in plan.request}
    types |= {plan.event_timestamp: TIMESTAMP}
    wanted = dict.fromkeys([*plan.entity_keys, *types])
    if missing := [name for name in wanted if name not in log.column_names]:
        problem = f"columns {missing} are missing; it was written by another version of Headrace"
        raise SchemaMismatch("inference log", [problem])
    columns = {}
    for name in wanted:
        column = log[name]
        if name in types and column.type != types[name]:
            # A field that is also a model input is logged as the model saw it, as float32.
            rounded = pc.round(column) if pa.types.is_integer(types[name]) else column
            column = rounded.cast(types[name])
        columns[name] = column
    return pa.table(columns)
