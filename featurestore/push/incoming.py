"""Rows that come from outside: checked before any store sees them.

A row must have the view's join keys (none null), its times with their zone, and its features in
their types; and it may not claim to be from the future. A wrong clock would otherwise fix an
entity's value for as long as the clock is ahead, because an older value never replaces a newer one.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP, check_columns, is_text
from featurestore.errors import FeatureStoreError
from headrace.errors import SchemaMismatch, UsageError
from headrace.plan import ViewRead

LEEWAY = timedelta(minutes=5)
"""How far ahead of this machine's clock a row's times may be."""

_ARROW = {
    "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "INT32": pa.int32(), "INT64": pa.int64(),
    "BOOL": pa.bool_(), "STRING": pa.string(), "BYTES": pa.binary(), "JSON": pa.string(),
    "UUID": pa.string(), "TIME_UUID": pa.string(), "DECIMAL": pa.string(),
    "UNIX_TIMESTAMP": TIMESTAMP,
}  # fmt: skip


class BadRow(NamedTuple):
    """A row that cannot be used."""

    row: int
    reason: str
    """With the column and the value."""


class RowsRefused(FeatureStoreError, UsageError):
    """Rows of which at least one cannot be used; none was written."""

    def __init__(self, view: str, bad: Sequence[BadRow], rows: int) -> None:
        self.view, self.bad, self.rows = view, tuple(bad), rows
        told = "; ".join(f"row {found.row}: {found.reason}" for found in self.bad[:3])
        super().__init__(
            f"{len(self.bad)} of {rows} rows pushed to {view} are refused, and none was written: "
            f"{told}. Mend or leave out these rows, and push again."
        )


def view_schema(view: ViewRead) -> pa.Schema:
    """The columns that a view's table must have, in the types that its definition says.

    Raises:
        SchemaMismatch: for a feature whose type has more than one Arrow type.
    """
    columns = [(key.name, _ARROW[key.dtype]) for key in view.join_keys]
    columns += [(name, TIMESTAMP) for name in view.timestamps]
    for feature in view.features:
        kind = _ARROW.get(feature.dtype.removesuffix("_LIST"))
        if kind is None:
            problem = f"a {feature.dtype} such as {feature.name} has no one Arrow type"
            raise SchemaMismatch(view.table, [f"{problem}; write its first rows as a table"])
        listed = feature.dtype.endswith("_LIST")
        columns.append((feature.name, pa.list_(kind) if listed else kind))
    return pa.schema(columns)


def checked_rows(
    view: ViewRead, rows: pa.Table, schema: pa.Schema, *, now: datetime | None = None
) -> pa.Table:
    """Return ``rows`` with the columns and types of ``schema``, or refuse all of them.

    Raises:
        SchemaMismatch: for a column that is missing, unknown, or of another kind.
        RowsRefused: for a null key or time, a value that does not fit, or a time in the future.
    """
    check_columns(f"rows pushed to {view.view}", rows.schema, schema.names)
    if unknown := sorted(set(rows.column_names) - set(schema.names)):
        have = ", ".join(schema.names)
        problem = f"columns {unknown} are not in table {view.table}, which has {have}"
        raise SchemaMismatch(f"rows pushed to {view.view}", [problem])
    columns = [_cast(view, rows, column) for column in schema]
    table = pa.table(columns, schema=pa.schema([(c.name, c.type) for c in schema]))
    if bad := bad_rows(view, table, now=now):
        raise RowsRefused(view.view, bad, rows.num_rows)
    return table


def bad_rows(view: ViewRead, rows: pa.Table, *, now: datetime | None = None) -> list[BadRow]:
    """The rows with a null key or time, or a time in the future; each with its first reason."""
    latest = pa.scalar((now or datetime.now(UTC)) + LEEWAY, TIMESTAMP)
    reasons: dict[int, str] = {}
    for name in (*view.key_names, *view.timestamps):
        for row in np.flatnonzero(rows[name].is_null().to_numpy()).tolist():
            reasons.setdefault(row, f"{name} is null")
    for name in view.timestamps:
        ahead = pc.fill_null(pc.greater(rows[name], latest), False)
        for row in np.flatnonzero(ahead.to_numpy()).tolist():
            moment = rows[name][row].as_py()
            reasons.setdefault(row, f"{name} = {moment.isoformat()} lies in the future")
    return [BadRow(row, reasons[row]) for row in sorted(reasons)]


def _cast(view: ViewRead, rows: pa.Table, column: pa.Field) -> pa.ChunkedArray:
    have, wanted = rows[column.name], column.type
    if pa.types.is_dictionary(have.type):
        have = have.cast(have.type.value_type)
    wrong = f"{column.name} is {have.type}, but must be {wanted}"
    if pa.types.is_timestamp(wanted) and getattr(have.type, "tz", None) is None:
        raise SchemaMismatch(f"rows pushed to {view.view}", [f"{wrong}, with its time zone"])
    for is_kind in (pa.types.is_boolean, is_text):
        if is_kind(have.type) != is_kind(wanted) and not pa.types.is_null(have.type):
            raise SchemaMismatch(f"rows pushed to {view.view}", [wrong])
    # A float keeps what it can of a number; nanoseconds are cut to microseconds, as everywhere.
    inexact = pa.types.is_floating(wanted) or pa.types.is_timestamp(wanted)
    try:
        return have.cast(wanted, safe=not inexact)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        bad = _misfits(have, column.name, lambda value: value.cast(wanted))
        if bad:
            raise RowsRefused(view.view, bad, rows.num_rows) from error
        raise SchemaMismatch(f"rows pushed to {view.view}", [wrong]) from error


def _misfits(
    values: pa.ChunkedArray, name: str, convert: Callable[[pa.Scalar], Any]
) -> list[BadRow]:
    def fits(value: pa.Scalar) -> bool:
        try:
            convert(value)
        except pa.ArrowInvalid:
            return False
        return True

    wrong: Iterable[int] = (row for row, value in enumerate(values) if not fits(value))
    return [BadRow(row, f"{name} = {values[row].as_py()!r:.80} does not fit") for row in wrong]
