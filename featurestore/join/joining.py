"""``ServiceJoin``: several views opened once, and joined to table after table of rows.

Each view is joined for itself, on as many threads as Arrow has (``pyarrow.set_cpu_count``): Arrow
and NumPy let go of the interpreter while they work on a column.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from featurestore.columns import microseconds
from featurestore.join.keys import RowKeys
from featurestore.join.pit import JoinedView, ViewValues
from featurestore.join.reach import OpenView, Span, open_view
from headrace.plan import ViewRead

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ServiceJoin:
    """The views of a service, ready to be joined to rows of a span."""

    views: tuple[OpenView, ...]

    @classmethod
    def open(
        cls,
        offline_uri: str,
        reads: Sequence[ViewRead],
        span: Span | None,
        *,
        as_arrow: bool = False,
        fingerprint: bool = True,
    ) -> "ServiceJoin":
        """Read and order what rows of a span can use; the arguments are those of ``open_view``."""

        def opened(read: ViewRead) -> OpenView:
            return open_view(offline_uri, read, span, as_arrow=as_arrow, fingerprint=fingerprint)

        return cls(tuple(in_threads(opened, reads)))

    def join(
        self, rows: pa.Table, timestamp: str, *, exact_reasons: bool = True
    ) -> tuple[JoinedView, ...]:
        """Return each view's values for each row, the views in their order.

        Args:
            rows: has the join keys and ``timestamp``, all of it in the span.
            timestamp: the column with the moment of each row.
            exact_reasons: as for ``OpenView.join``.

        Raises:
            SchemaMismatch: if a join key or ``timestamp`` is missing, or has a wrong type.
        """
        at = microseconds(rows, "rows", timestamp)
        keys = hashed_keys(rows, [view.read for view in self.views])

        def joined(view: OpenView) -> JoinedView:
            return view.join(keys, at, exact_reasons=exact_reasons)

        return tuple(in_threads(joined, self.views))


def join_tables(
    rows: pa.Table, tables: Sequence[tuple[pa.Table, ViewRead]], *, timestamp: str
) -> tuple[JoinedView, ...]:
    """Join views whose tables are in memory: ``point_in_time_join`` of each, on threads.

    Raises:
        SchemaMismatch: as ``point_in_time_join``.
    """
    at = microseconds(rows, "rows", timestamp)
    keys = hashed_keys(rows, [read for _, read in tables])

    def joined(view: tuple[pa.Table, ViewRead]) -> JoinedView:
        return ViewValues.of(*view).join(keys, at)

    return tuple(in_threads(joined, tables))


def hashed_keys(rows: pa.Table, reads: Iterable[ViewRead]) -> RowKeys:
    """The rows' join keys, hashed once for all views."""
    keys = RowKeys(rows)
    in_threads(keys.hashed, dict.fromkeys(key for read in reads for key in read.join_keys))
    return keys


def in_threads(function: Callable[[_In], _Out], given: Iterable[_In]) -> list[_Out]:
    """``function`` of each, in order, on as many threads as Arrow has."""
    given = list(given)
    if min(len(given), pa.cpu_count()) < 2:
        return [function(each) for each in given]
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        return list(pool.map(function, given))
