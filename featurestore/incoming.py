"""Rows that come from outside, as tables or as JSON events: checked before any store sees them.

A row must have the view's join keys (none null), its times with their zone, and its features in
their types; and it may not claim to be from the future. A wrong clock would otherwise fix an
entity's value for as long as the clock is ahead, because an older value never replaces a newer one.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP, check_columns
from featurestore.errors import FeatureStoreError
from headrace.errors import HeadraceError, SchemaMismatch, UsageError
from headrace.plan import ViewRead

LEEWAY = timedelta(minutes=5)
"""How far ahead of this machine's clock a row's times may be."""

_ARROW = {
    "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "INT32": pa.int32(), "INT64": pa.int64(),
    "BOOL": pa.bool_(), "STRING": pa.string(), "BYTES": pa.binary(), "JSON": pa.string(),
    "UUID": pa.string(), "TIME_UUID": pa.string(), "DECIMAL": pa.string(),
    "UNIX_TIMESTAMP": TIMESTAMP,
}  # fmt: skip

_ALLOWED: tuple[tuple[Callable[[pa.DataType], bool], tuple[type, ...]], ...] = (
    (pa.types.is_boolean, (bool,)),
    (pa.types.is_integer, (int,)),
    (pa.types.is_floating, (int, float)),
    (pa.types.is_string, (str,)),
    (pa.types.is_large_string, (str,)),
    (pa.types.is_binary, ()),  # JSON holds no bytes
    (pa.types.is_list, (list,)),
)
"""The Python types of JSON values that a column of a kind takes."""


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


def rows_of_events(
    view: ViewRead, events: Sequence[bytes], schema: pa.Schema, *, now: datetime | None = None
) -> tuple[pa.Table, list[int], list[BadRow]]:
    """Part JSON events that fit from those that do not.

    An event is an object with exactly the columns of ``schema``; times are ISO 8601 with a zone.

    Returns:
        The good events as a table, the position of each of its rows in ``events``, and the bad ones
        with their positions.
    """
    bad: list[BadRow] = []
    good: list[tuple[int, dict[str, Any]]] = []
    for position, text in enumerate(events):
        try:
            good.append((position, _event(text, schema)))
        except _EventRefused as error:
            bad.append(BadRow(position, str(error)))
    schema = pa.schema([(column.name, column.type) for column in schema])
    rows = pa.Table.from_pylist([event for _, event in good], schema=schema)
    late = bad_rows(view, rows, now=now)
    refused = {found.row for found in late}
    bad += [BadRow(good[found.row][0], found.reason) for found in late]
    kept = [row for row in range(rows.num_rows) if row not in refused]
    return rows.take(pa.array(kept, pa.int64())), [good[row][0] for row in kept], sorted(bad)


class _EventRefused(HeadraceError):
    """An event that is no row; the text is the reason."""


def _event(text: bytes, schema: pa.Schema) -> dict[str, Any]:
    try:
        event = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise _EventRefused(f"it is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise _EventRefused(f"it is {type(event).__name__}, but must be an object")
    for name in schema.names:
        if name not in event:
            raise _EventRefused(f"{name} is missing; write null where there is no value")
    for name in sorted(event.keys() - set(schema.names)):
        raise _EventRefused(f"{name} is no column; they are {', '.join(schema.names)}")
    return {column.name: _value(event[column.name], column) for column in schema}


def _value(value: Any, column: pa.Field) -> Any:
    try:
        converted = _converted(value, column.type)
        return pa.scalar(converted, column.type).as_py()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = f"{column.name} = {value!r:.80} does not fit {column.type}: {error}"
        raise _EventRefused(reason) from error


def _converted(value: Any, kind: pa.DataType) -> Any:
    """A value of JSON as Arrow takes it; Arrow alone would make 1 of 1.5, and 1.0 of true."""
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return _moment(value)
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_converted(element, kind.value_type) for element in value]
    for is_kind, allowed in _ALLOWED:
        if is_kind(kind) and type(value) not in allowed:
            raise TypeError(f"it is {type(value).__name__}")
    return value


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError("write a time as text, 2013-08-01T12:00:00+00:00")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment.astimezone(UTC)


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON; write null")


def _cast(view: ViewRead, rows: pa.Table, column: pa.Field) -> pa.ChunkedArray:
    have, wanted = rows[column.name], column.type
    if pa.types.is_dictionary(have.type):
        have = have.cast(have.type.value_type)
    wrong = f"{column.name} is {have.type}, but must be {wanted}"
    if pa.types.is_timestamp(wanted) and getattr(have.type, "tz", None) is None:
        raise SchemaMismatch(f"rows pushed to {view.view}", [f"{wrong}, with its time zone"])
    for is_kind in (pa.types.is_boolean, _is_text):
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


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
