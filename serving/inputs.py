"""From the queries of one batch to the model's input matrix.

Everything is done for the whole batch at once. Only where that fails is each query tried by itself,
so that a bad one costs only itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from featurestore.online.reader import OnlineRows
from headrace.errors import HeadraceError
from serving.errors import FieldsRefused, PlaneFailed, Problem
from serving.query import Answer, Computed, Outcome, Query
from serving.schema import Rows

if TYPE_CHECKING:
    from serving.served import ServedModel

_NO_ANSWERS = np.empty(0, np.float32)
Tell = Callable[[Query, Outcome], object]
"""Tells who waits for a query that it ends here."""


@dataclass(slots=True, eq=False)
class Inputs:
    """What the model is to see for some queries of it, whose rows stand one after the other."""

    queries: Sequence[Query]
    counts: Sequence[int]
    """How many rows of the matrix belong to each query."""
    matrix: np.ndarray
    """float32, shape (rows, columns)."""
    rows: Rows | None = None
    """Keys and request fields; None for raw features."""
    statuses: Mapping[str, np.ndarray] = field(default_factory=dict)
    event_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    keys: Sequence[bytes] = ()
    """What each row's result is kept under; empty where results are not kept."""
    read: tuple[float, float] | None = None
    """When reading the features began and ended, by ``time.perf_counter()``."""


def raw_inputs(model: "ServedModel", queries: Sequence[Query], tell: Tell) -> Inputs | None:
    """Return the inputs of queries of raw features; None where all were refused.

    A single query that brings its own matrix is not copied.
    """
    columns = len(model.predictor.columns)
    fitting = queries
    if not _all_fit(queries, columns):
        fitting = [query for query in queries if _fits(query, columns, tell)]
    while fitting:
        matrix = _raw_matrix(fitting, columns)
        if not np.isinf(matrix).any():
            return Inputs(fitting, [query.rows for query in fitting], matrix)
        fitting = [query for query in fitting if _is_finite(query, model, tell)]
    return None


@dataclass(slots=True, eq=False)
class KeyedRows:
    """Queries whose rows fit the schema, and those rows as columns, one query after the other."""

    queries: list[Query]
    counts: list[int]
    rows: Rows
    keys: Sequence[bytes] = ()
    """As of ``Inputs``."""


def keyed_rows(model: "ServedModel", queries: Sequence[Query], tell: Tell) -> KeyedRows | None:
    """Validate the rows of queries of entity keys; None where all were refused."""
    asked = [query for query in queries if query.given is None]
    if len(asked) == len(queries):
        try:
            every = model.schema.rows([row for query in asked for row in query.instances or ()])
            return KeyedRows(asked, [query.rows for query in asked], every)
        except FieldsRefused:
            pass  # then each by itself
    fitting = [(query, rows) for query in queries if (rows := _own_rows(model, query, tell))]
    if not fitting:
        return None
    parts = [rows for _, rows in fitting]
    return KeyedRows([query for query, _ in fitting], [len(p.at) for p in parts], _joined(parts))


def keyed_inputs(model: "ServedModel", keyed: KeyedRows, read: OnlineRows) -> Inputs:
    """Return the inputs of queries of entity keys, whose features were read."""
    reads, overridden = read.columns, [q for q in keyed.queries if q.overrides]
    if overridden:
        reads = _overridden_reads(keyed, dict(reads))
    matrix = model.predictor.matrix(reads, keyed.rows.request)
    if overridden:
        _override_columns(model, keyed, matrix, reads)
    parts = keyed.rows, read.status, read.event_times
    return Inputs(keyed.queries, keyed.counts, matrix, *parts, keyed.keys)


def split(keyed: KeyedRows) -> list[KeyedRows]:
    """Each query by itself."""
    ends = np.cumsum(keyed.counts).tolist()
    spans = zip(keyed.queries, keyed.counts, ends, strict=True)
    return [KeyedRows([q], [count], _cut(keyed.rows, end - count, end)) for q, count, end in spans]


def single_rows(keyed: KeyedRows) -> list[KeyedRows]:
    """Each row of one query by itself."""
    rows = range(keyed.counts[0])
    return [KeyedRows(keyed.queries, [1], _cut(keyed.rows, row, row + 1)) for row in rows]


def without(keyed: KeyedRows, bad: Mapping[int, HeadraceError]) -> KeyedRows | None:
    """The rows of one partial query that are left when those at ``bad`` are set aside."""
    (query,), count = keyed.queries, keyed.counts[0]
    places = np.arange(query.rows) if query.places is None else query.places
    row_of = {place: row for row, place in enumerate(places.tolist()) if place >= 0}
    good = [place for place in range(count) if place not in bad]
    query.problems = {**(query.problems or {}), **{row_of[p]: bad[p] for p in bad}}
    query.places = np.full(query.rows, -1)
    query.places[[row_of[place] for place in good]] = np.arange(len(good))
    if not good:
        return None
    return KeyedRows([query], [len(good)], _joined([_cut(keyed.rows, p, p + 1) for p in good]))


def _all_fit(queries: Sequence[Query], columns: int) -> bool:
    """Whether all are lists of the right length: the usual case, at once."""
    lists = [query.features for query in queries]
    if any(type(features) is not list for features in lists):
        return False
    return list(map(len, lists)) == [query.rows * columns for query in queries]  # type: ignore[arg-type]


def _fits(query: Query, columns: int, tell: Tell) -> bool:
    features = query.features
    if isinstance(features, list):
        fits = len(features) == query.rows * columns
    else:
        fits = features is not None and features.shape == (query.rows, columns)
    if not fits:  # an edge checks what it decodes: here it would shift the rows of neighbours
        tell(query, PlaneFailed(f"decode {query.rows} rows of {columns} columns"))
    return fits


def _raw_matrix(queries: Sequence[Query], columns: int) -> np.ndarray:
    lists = [query.features for query in queries if type(query.features) is list]
    if len(lists) == len(queries):
        return _of_numbers(lists, columns)
    if len(queries) == 1:
        return np.ascontiguousarray(queries[0].features, np.float32)
    return np.concatenate(
        [
            _of_numbers([query.features], columns)
            if isinstance(query.features, list)
            else np.asarray(query.features, np.float32)
            for query in queries
        ]
    )


def _of_numbers(lists: Sequence[Sequence[float | None]], columns: int) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
        try:
            flat = np.fromiter(chain.from_iterable(lists), np.float32)
        except TypeError:  # None among the numbers; slower by a third
            flat = np.array(list(chain.from_iterable(lists)), np.float32)
    return flat.reshape(-1, columns)


def _is_finite(query: Query, model: "ServedModel", tell: Tell) -> bool:
    columns = model.predictor.columns
    infinite = np.isinf(_raw_matrix([query], len(columns)))
    if not infinite.any():
        return True
    row, column = (int(place) for place in np.argwhere(infinite)[0])
    name = columns[column]
    message = (
        f"row {row}: {name} does not fit a 32-bit float; write a number within 3.4e38 of zero, or "
        "null where it is missing"
    )
    tell(query, FieldsRefused([Problem(message, field=name, row=row)]))
    return False


def _own_rows(model: "ServedModel", query: Query, tell: Tell) -> Rows | None:
    if query.given is not None:
        return query.given
    instances = query.instances or []
    try:
        return model.schema.rows(instances)
    except FieldsRefused as error:
        if not query.partial:
            tell(query, error)
            return None
    parts: list[Rows] = []
    query.problems, query.places = {}, np.full(query.rows, -1)
    for number, instance in enumerate(instances):
        try:
            parts.append(model.schema.rows([instance]))
        except FieldsRefused as error:
            query.problems[number] = _numbered(error, number)
        else:
            query.places[number] = len(parts) - 1
    if parts:
        return _joined(parts)
    tell(query, no_rows(query))
    return None


def no_rows(query: Query) -> Answer:
    """The answer to a partial query that has no good row."""
    columns = len(query.model.predictor.columns)
    return Answer(query, Computed(np.empty((0, columns), np.float32), _NO_ANSWERS, {}, {}), 0, 0)


def _numbered(error: FieldsRefused, row: int) -> FieldsRefused:
    """What is wrong with a row that was looked at alone, with its number in the request."""
    return FieldsRefused(
        [
            replace(p, message=p.message.replace("row 0", f"row {row}", 1), row=row)
            for p in error.problems
        ]
    )


def _overridden_reads(keyed: KeyedRows, reads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns that were read, with the values that requests brought themselves."""
    for row, column, value in _overrides(keyed):
        if column in reads:
            reads[column] = reads[column].copy()
            reads[column][row] = value
    return reads


def _override_columns(
    model: "ServedModel", keyed: KeyedRows, matrix: np.ndarray, reads: Mapping[str, np.ndarray]
) -> None:
    places = {name: place for place, name in enumerate(model.predictor.columns)}
    for row, column, value in _overrides(keyed):
        if column not in reads:
            matrix[row, places[column]] = value


def _overrides(keyed: KeyedRows) -> Iterator[tuple[int, str, float]]:
    """Row of the batch, column and value."""
    begin = 0
    for query, count in zip(keyed.queries, keyed.counts, strict=True):
        for column, values in (query.overrides or {}).items():
            for row, value in values.items():
                place = row if query.places is None else int(query.places[row])
                if place >= 0:
                    yield begin + place, column, value
        begin += count


def _joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several queries, one query after the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Rows(
        keys={n: list(chain.from_iterable(p.keys[n] for p in parts)) for n in first.keys},
        request={n: np.concatenate([p.request[n] for p in parts]) for n in first.request},
        at=np.concatenate([p.at for p in parts]),
    )


def _cut(rows: Rows, begin: int, end: int) -> Rows:
    return Rows(
        keys={name: values[begin:end] for name, values in rows.keys.items()},
        request={name: column[begin:end] for name, column in rows.request.items()},
        at=rows.at[begin:end],
    )
