"""JSON events as rows of a view: what fits becomes a table, what does not keeps its reason.

A batch is converted a column at a time; only a column that does not fit as a whole is looked
through value by value.
"""

import json
import math
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import pyarrow as pa

from featurestore.push.incoming import BadRow, bad_rows
from headrace.errors import HeadraceError
from headrace.plan import ViewRead

_ALLOWED: tuple[tuple[Callable[[pa.DataType], bool], tuple[type, ...]], ...] = (
    (pa.types.is_timestamp, (str,)),
    (pa.types.is_boolean, (bool,)),
    (pa.types.is_integer, (int,)),
    (pa.types.is_floating, (int, float)),
    (pa.types.is_string, (str,)),
    (pa.types.is_large_string, (str,)),
    (pa.types.is_binary, ()),  # JSON holds no bytes
    (pa.types.is_list, (list,)),
)
"""The Python types of JSON values that a column of a kind takes."""


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON; write null")


_DECODER = json.JSONDecoder(parse_constant=_no_json)
_MISFITS = (pa.ArrowException, ValueError, TypeError, OverflowError)


def rows_of_events(
    view: ViewRead, events: Sequence[bytes], schema: pa.Schema, *, now: datetime | None = None
) -> tuple[pa.Table, list[int], list[BadRow]]:
    """Part JSON events that fit from those that do not.

    An event is an object with exactly the columns of ``schema``; times are ISO 8601 with a zone.

    Returns:
        The good events as a table, the position of each of its rows in ``events``, and the bad ones
        with their positions.
    """
    reasons: dict[int, str] = {}
    good: dict[int, dict[str, Any]] = {}
    names = frozenset(schema.names)
    for position, text in enumerate(events):
        try:
            good[position] = _event(text, names)
        except _EventRefused as error:
            reasons[position] = str(error)
    for column in schema:
        reasons |= _misfitting(good, column, leave_out=reasons)
    kept = [position for position in good if position not in reasons]
    columns = [_column([good[p][column.name] for p in kept], column.type) for column in schema]
    plain = pa.schema([(column.name, column.type) for column in schema])
    rows = pa.table(columns, schema=plain)
    refused = {found.row: found.reason for found in bad_rows(view, rows, now=now)}
    reasons |= {kept[row]: reason for row, reason in refused.items()}
    fine = [row for row in range(len(kept)) if row not in refused]
    bad = [BadRow(position, reasons[position]) for position in sorted(reasons)]
    return rows.take(pa.array(fine, pa.int64())), [kept[row] for row in fine], bad


class _EventRefused(HeadraceError):
    """An event that is no row; the text is the reason."""


def _event(text: bytes, names: frozenset[str]) -> dict[str, Any]:
    try:
        event = _DECODER.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise _EventRefused(f"it is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise _EventRefused(f"it is {type(event).__name__}, but must be an object")
    for name in sorted(names - event.keys()):
        raise _EventRefused(f"{name} is missing; write null where there is no value")
    for name in sorted(event.keys() - names):
        raise _EventRefused(f"{name} is no column; they are {', '.join(sorted(names))}")
    return event


def _misfitting(
    events: Mapping[int, dict[str, Any]], column: pa.Field, *, leave_out: Container[int]
) -> dict[int, str]:
    """Why values of a column do not fit, by position. A column is tried as a whole first."""
    values = {p: event[column.name] for p, event in events.items() if p not in leave_out}
    try:
        _column(list(values.values()), column.type)
    except _MISFITS:
        return {p: reason for p, v in values.items() if (reason := _why_not(v, column))}
    return {}


def _why_not(value: Any, column: pa.Field) -> str:
    try:
        _column([value], column.type)
    except _MISFITS as error:
        return f"{column.name} = {value!r:.80} does not fit {column.type}: {error}"
    return ""


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values of JSON as an Arrow column; Arrow alone would make 1 of 1.5, and 1.0 of true."""
    allowed = [types for is_kind, types in _ALLOWED if is_kind(kind)]
    wrong = {type(value) for value in values} - {
        type(None),
        *(t for types in allowed for t in types),
    }
    if allowed and wrong:
        raise TypeError(f"it is {wrong.pop().__name__}")
    if pa.types.is_floating(kind) and not all(v is None or math.isfinite(v) for v in values):
        raise ValueError("it is infinite")  # JSON's 1e999
    if pa.types.is_list(kind):
        _column([element for value in values for element in value or ()], kind.value_type)
    if _holds_times(kind):
        values = [_with_moments(value) for value in values]
    return pa.array(values, kind)


def _holds_times(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind.value_type if pa.types.is_list(kind) else kind))


def _with_moments(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_moments(element) for element in value]
    return None if value is None else _moment(value)


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment.astimezone(UTC)
