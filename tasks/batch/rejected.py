"""Rows that cannot be scored: found a column at a time, named by their file, position and reason.

What the server refuses in a request is rejected here: a request field that is null, no number, out
of its bounds, none of its values or beyond a 32-bit float; a moment that is null; a key that its
entity's type cannot hold. Where the input holds the model's own inputs (``--features input``), a
number that the model sees as it is may be missing, as in a request of raw features. Rejected too is
what only a batch meets: a value of a text file that does not fit its column, an input of the model
that is infinite, an answer that is no finite number. A missing feature is no reason: the model has
learned what missing means.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from headrace.plan import FeaturePlan, JoinKey
from headrace.spec import RequestField
from tasks.batch.inputs import UNREADABLE
from tasks.batch.job import FILE, REASON, ROW, InputColumns

_FLOAT32 = float(np.finfo(np.float32).max)
_FLOAT32_BYTES = 4
_INTEGERS: dict[str, np.iinfo] = {"INT32": np.iinfo(np.int32), "INT64": np.iinfo(np.int64)}


class Reasons:
    """Why each row of a batch is rejected; a row's first reason stands."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, np.int32)
        """int32, shape (rows,): 0 for a row that is not rejected, else 1 + its place in texts."""
        self.texts: list[str] = []

    def add(self, hit: np.ndarray, text: str) -> None:
        """Reject the rows where ``hit`` (bool, shape (rows,)) is true, unless they are already."""
        first = hit & (self.codes == 0)
        if first.any():
            self.texts.append(text)
            self.codes[first] = len(self.texts)

    @property
    def good(self) -> np.ndarray | None:
        """bool, shape (rows,): the rows that are not rejected; None: all of them."""
        return self.codes == 0 if self.texts else None

    def column(self) -> pa.Array:
        """The reason of each rejected row, in their order."""
        codes = self.codes[self.codes > 0] - 1
        return pa.array(self.texts, pa.string()).take(pa.array(codes))


class RowChecks:
    """What each row of an input must be, before any feature is joined."""

    def __init__(self, plan: FeaturePlan, columns: InputColumns) -> None:
        fields = {field.name: field for field in plan.request}
        keys = {key.name for key in columns.join_keys}
        moment = RequestField(name=plan.event_timestamp, dtype="timestamp", description="a moment")
        self._fields = [
            fields.get(name, moment)
            for name, kind in columns.given.items()
            if kind != "key" and name not in keys
        ]
        self._optional = frozenset(columns.optional)
        self._keys = columns.join_keys

    def reasons(self, rows: pa.Table) -> Reasons:
        """Say of each row why it cannot be scored."""
        reasons = Reasons(rows.num_rows)
        if UNREADABLE in rows.column_names:
            _add_unreadable(reasons, rows[UNREADABLE])
        for field in self._fields:
            column, may_miss = rows[field.name], field.name in self._optional
            for hit, problem in _problems(column, field, may_miss=may_miss):
                reasons.add(hit, f"{field.name} {problem}")
        for key in self._keys:
            for hit in _no_keys(rows[key.name], key):
                reasons.add(hit, f"{key.name} does not fit {key.dtype.lower()}")
        return reasons


def infinite_inputs(matrix: np.ndarray, names: tuple[str, ...]) -> Reasons:
    """Rows with an infinite input: a feature or a transform beyond a 32-bit float."""
    reasons = Reasons(len(matrix))
    parts = (matrix[first : first + 8_192] for first in range(0, len(matrix), 8_192))
    if any(np.isinf(part).any() for part in parts):  # by parts that stay in a core's cache
        for place, name in enumerate(names):
            reasons.add(np.isinf(matrix[:, place]), f"{name} is infinite as a 32-bit float")
    return reasons


def not_finite(predictions: np.ndarray) -> Reasons:
    """Rows whose prediction is no finite number; the server refuses to answer so."""
    reasons = Reasons(len(predictions))
    finite = np.isfinite(predictions)
    if not finite.all():
        reasons.add(~finite, "the model's answer is not a finite number")
    return reasons


def rejected_rows(rows: pa.Table, positions: np.ndarray, reasons: Reasons, file: str) -> pa.Table:
    """The rejected rows as they are written: file, position, reason, and the columns as read."""
    bad = reasons.codes > 0
    found = rows.filter(pa.array(bad))
    ours = {FILE, ROW, REASON, UNREADABLE}
    found = found.select([name for name in found.column_names if name not in ours])
    head = {
        FILE: pa.array([file] * found.num_rows, pa.string()),
        ROW: pa.array(positions[bad]),
        REASON: reasons.column(),
    }
    return pa.table(head | dict(zip(found.column_names, found.columns, strict=True)))


def _problems(
    column: pa.ChunkedArray, field: RequestField, *, may_miss: bool
) -> Iterator[tuple[np.ndarray, str]]:
    """Each thing that is wrong with some rows of a request field."""
    if column.null_count and not may_miss:
        yield _mask(pc.is_null(column)), "is null"
    if field.one_of is not None and not pt.is_null(column.type):
        known = pc.is_in(column, pa.array(field.one_of).cast(column.type))
        words = ", ".join(map(repr, field.one_of))
        yield _mask(pc.and_not(pc.is_valid(column), known)), f"is none of {words}"
    if field.dtype in ("string", "timestamp") or pt.is_null(column.type):
        return
    if pt.is_floating(column.type):
        values = np.asarray(column.to_numpy(zero_copy_only=False))
        if not may_miss and np.isnan(values).any():
            absent = _mask(pc.is_null(column))  # as NumPy sees it, a null is NaN too
            yield np.isnan(values) & ~absent, "is not a number"
        if values.dtype.itemsize > _FLOAT32_BYTES:  # of 32 bits, the matrix is looked at later
            yield np.abs(values) > _FLOAT32, "does not fit a 32-bit float"
    compare: tuple[tuple[float | None, Callable[..., pa.ChunkedArray], str], ...] = (
        (field.at_least, pc.less, "is below"),
        (field.at_most, pc.greater, "is above"),
    )
    for bound, beyond, words in compare:
        if bound is not None:
            yield _mask(beyond(column, pa.scalar(bound, pa.float64()))), f"{words} {bound:g}"


def _no_keys(column: pa.ChunkedArray, key: JoinKey) -> Iterator[np.ndarray]:
    """Where a whole number does not fit its entity's type; not looked at where it must."""
    if key.dtype == "STRING" or not pt.is_integer(column.type):
        return
    have, wanted = np.iinfo(column.type.to_pandas_dtype()), _INTEGERS[key.dtype]
    if have.min < wanted.min:
        yield _mask(pc.less(column, pa.scalar(wanted.min, column.type)))
    if have.max > wanted.max:
        yield _mask(pc.greater(column, pa.scalar(wanted.max, column.type)))


def _add_unreadable(reasons: Reasons, told: pa.ChunkedArray) -> None:
    if told.null_count == len(told):
        return
    for text in pc.unique(told).drop_null().to_pylist():
        reasons.add(_mask(pc.equal(told, text)), text)


def _mask(where: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(where.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)
