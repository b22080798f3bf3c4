"""A profile: a mergeable summary of fixed size of a window's columns.

``reference_profile`` learns the bins from a training set and is kept in the bundle;
``profile_like`` counts other rows on those bins; ``merge`` adds two counts up. Profiles of shards,
servers and hours give the profile of all their rows, so the decision about drift needs one pass
and never the rows again. NumPy and Arrow only: the online server keeps one.

>>> reference = reference_profile({"delay": np.arange(100.0)})
>>> window = profile_like(reference, {"delay": np.array([3.0, np.nan, 99.0])})
>>> merge(window, window).columns["delay"].missing
2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from headrace.bundle import arrow_bytes
from monitoring.categories import (
    CategoryColumn,
    add_categories,
    count_categories,
    learn_categories,
)
from monitoring.errors import ColumnRefused, ColumnsMissing, EdgesDiffer, ProfileRefused
from monitoring.numbers import BINS, NumberColumn, add_numbers, count_numbers, learn_edges

Column = NumberColumn | CategoryColumn

_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "edges": pa.list_(pa.float64()),
        "categories": pa.list_(pa.string()),
        "counts": pa.list_(pa.int64()),
        "missing": pa.int64(),
        "finite": pa.int64(),
        "mean": pa.float64(),
        "m2": pa.float64(),
        "minimum": pa.float64(),
        "maximum": pa.float64(),
    },
    metadata={"format": "headrace-profile-1"},
)
"""One row a column; a column of text has null edges and moments, one of numbers no categories."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The profiles of a window's columns, by name."""

    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        """Rows of the window, the missing values too."""
        return max((column.rows for column in self.columns.values()), default=0)

    def to_bytes(self) -> bytes:
        """The profile as an Arrow IPC file; equal profiles give equal bytes."""
        records = [_record(name, self.columns[name]) for name in sorted(self.columns)]
        return arrow_bytes(pa.Table.from_pylist(records, schema=_SCHEMA))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            ProfileRefused: if it is something else.
        """
        try:
            table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        except (pa.ArrowException, OSError) as error:
            raise ProfileRefused(f"it is no Arrow file ({error})") from error
        if not table.schema.equals(_SCHEMA, check_metadata=True):
            raise ProfileRefused(f"its columns are {', '.join(table.column_names)}")
        return cls({record["name"]: _column(record) for record in table.to_pylist()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Profile) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())


def reference_profile(columns: Mapping[str, np.ndarray], *, bins: int = BINS) -> Profile:
    """Return the profile that others are compared with; it learns the bins from ``columns``.

    Args:
        columns: name to values, shape (rows,): numbers (NaN is missing) or text (None is missing).
        bins: how many quantile bins a column of many numbers gets.

    Raises:
        ColumnRefused: for a column of another type or length.
    """
    _check_lengths(columns)
    found: dict[str, Column] = {}
    for name, values in columns.items():
        if _is_number(values):
            numbers = _numbers(name, values)
            found[name] = count_numbers(numbers, learn_edges(numbers, bins=bins))
        else:
            text = _text(name, values)
            found[name] = count_categories(text, learn_categories(text))
    return Profile(found)


def profile_like(reference: Profile, columns: Mapping[str, np.ndarray]) -> Profile:
    """Return the profile of ``columns`` on the bins of ``reference``.

    Columns that the reference does not have are passed over.

    Raises:
        ColumnsMissing: if the reference has columns that ``columns`` lacks.
        ColumnRefused: for a column of another type or length.
    """
    if missing := reference.columns.keys() - columns.keys():
        raise ColumnsMissing(missing, columns)
    wanted = {name: columns[name] for name in reference.columns}
    _check_lengths(wanted)
    found: dict[str, Column] = {}
    for name, known in reference.columns.items():
        if isinstance(known, NumberColumn):
            found[name] = count_numbers(_numbers(name, wanted[name]), known.edges)
        else:
            found[name] = count_categories(_text(name, wanted[name]), known.categories)
    return Profile(found)


def merge(a: Profile, b: Profile) -> Profile:
    """Return the profile of the rows of both.

    Raises:
        EdgesDiffer: if they were not counted on the same columns and bins.
    """
    check_same_edges(a, b)
    return Profile({name: _add(column, b.columns[name]) for name, column in a.columns.items()})


def check_same_edges(a: Profile, b: Profile) -> None:
    """Raise ``EdgesDiffer`` unless both profiles have the same columns and bins."""
    different = a.columns.keys() ^ b.columns.keys()
    shared = a.columns.keys() & b.columns.keys()
    different |= {name for name in shared if not a.columns[name].fits(b.columns[name])}
    if different:
        raise EdgesDiffer(different)


def _add(a: Column, b: Column) -> Column:
    if isinstance(a, NumberColumn) and isinstance(b, NumberColumn):
        return add_numbers(a, b)
    if isinstance(a, CategoryColumn) and isinstance(b, CategoryColumn):
        return add_categories(a, b)
    raise AssertionError("check_same_edges lets no two kinds of column through")


def _is_number(values: np.ndarray) -> bool:
    return values.dtype.kind in "fiub"


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if not _is_number(values):
        raise ColumnRefused(name, f"it holds {values.dtype}, the reference holds numbers")
    return np.ascontiguousarray(values, dtype=np.float64)


def _text(name: str, values: np.ndarray) -> pa.Array:
    if values.dtype.kind not in "UO":
        raise ColumnRefused(name, f"it holds {values.dtype}, neither numbers nor text")
    try:
        return pa.array(values, pa.string(), from_pandas=True)  # from_pandas: NaN is null too
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ColumnRefused(name, f"it is not all text ({error})") from error


def _check_lengths(columns: Mapping[str, np.ndarray]) -> None:
    lengths = {values.shape for values in columns.values()}
    for name, values in columns.items():
        if values.ndim != 1:
            raise ColumnRefused(name, f"its shape is {values.shape}")
        if len(lengths) > 1 and values.size != max(shape[0] for shape in lengths):
            raise ColumnRefused(name, f"it has {values.size} rows, others have more")


def _record(name: str, column: Column) -> dict[str, Any]:
    return dict.fromkeys(_SCHEMA.names) | vars(column) | {"name": name}


def _column(record: dict[str, Any]) -> Column:
    fields = {key: value for key, value in record.items() if value is not None and key != "name"}
    fields["counts"] = np.array(fields["counts"], np.int64)
    if "edges" in fields:
        return NumberColumn(**fields | {"edges": np.array(fields["edges"], np.float64)})
    return CategoryColumn(**fields | {"categories": tuple(fields["categories"])})
