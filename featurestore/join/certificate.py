"""``Certificate``: what a table of historical features was made of, and what is missing in it.

It says everything that is needed to make the table again and to tell whether that gave the same:
fingerprints of the rows, of each source as it was read, of the definitions and transforms, and of
the result; and it counts every null with its reason. There is no wall time in it: the same inputs
have the same certificate, to the byte.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AwareDatetime, Field

from featurestore.join.fingerprint import Fingerprint
from featurestore.join.pit import Column, JoinedView, NullReason
from headrace.plan import FeaturePlan, ViewRead
from headrace.spec import Part

SUFFIX = ".certificate.json"


class SourceRead(Part):
    """What was read of a view's table: the rows in reach, the columns of the view."""

    table: str
    since: AwareDatetime | None
    """The first event time in reach; None: from the start."""
    until: AwareDatetime | None
    """The first event time out of reach; None: to the end."""
    rows: int
    sha256: str
    """``featurestore.join.fingerprint`` of these rows."""


class ViewCertificate(Part):
    """One view's part: what it was read from, and what became of each row."""

    read: ViewRead
    source: SourceRead
    reasons: dict[str, int]
    """How many rows have a value within the TTL, and how many have none, by ``NullReason``."""
    null_counts: dict[str, int]
    """By column, how many rows have no value: for a reason above, or as the value itself is null"""
    oldest_seconds: float | None
    """The greatest age of a value that was used; None: none was."""


class Certificate(Part):
    """What a table of historical features was made of."""

    format: Literal["headrace-certificate-1"] = "headrace-certificate-1"
    engine: str
    """The version of Headrace that joined."""
    timestamp: str
    """The column with the moment of each row."""
    first: AwareDatetime | None
    """The earliest of these moments; None: there are no rows."""
    last: AwareDatetime | None
    rows_in: int
    rows_out: int
    labels_sha256: str
    """The fingerprint of the rows as they came."""
    views: tuple[ViewCertificate, ...]
    definitions_sha256: str | None = None
    """The hash of the feature definitions, where a plan was followed."""
    transforms: dict[str, str] = Field(default_factory=dict)
    """By name, the hash of each transform's source."""
    result_sha256: str
    """The fingerprint of the table that came out."""

    def to_bytes(self) -> bytes:
        """The certificate as a JSON document; equal certificates give equal bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class CertificateMaker:
    """Keeps the books of a join, piece by piece."""

    def __init__(self, views: Sequence[ViewRead], timestamp: str) -> None:
        self._views, self._timestamp = views, timestamp
        self._tallies = [_Tally(view) for view in views]
        self._labels, self._result = Fingerprint(), Fingerprint()
        self._rows_in = self._rows_out = 0
        self._span: tuple[datetime, datetime] | None = None

    def count(self, rows: pa.Table, found: Sequence[JoinedView]) -> None:
        """Count rows that went in, and what was found for them."""
        at = rows[self._timestamp].cast(pa.int64()).to_numpy()
        for tally, joined in zip(self._tallies, found, strict=True):
            tally.add(joined, at)
        self._labels.update(rows)
        self._rows_in += rows.num_rows
        self._span = _both(self._span, span_of(rows[self._timestamp]))

    def count_result(self, table: pa.Table) -> None:
        """Count rows that came out."""
        self._result.update(table)
        self._rows_out += table.num_rows

    def certificate(
        self, sources: Sequence[SourceRead], *, plan: FeaturePlan | None = None
    ) -> Certificate:
        """The certificate of all pieces so far.

        Args:
            sources: what was read of each view, in the order of the views.
            plan: the plan that the views are of, if there is one.
        """
        first, last = self._span or (None, None)
        books = zip(self._views, self._tallies, sources, strict=True)
        return Certificate(
            engine=f"headrace {version('headrace')}",
            timestamp=self._timestamp,
            first=first,
            last=last,
            rows_in=self._rows_in,
            rows_out=self._rows_out,
            labels_sha256=self._labels.hexdigest(),
            views=tuple(tally.certificate(view, source) for view, tally, source in books),
            definitions_sha256=plan.definitions_sha256 if plan else None,
            transforms={pin.name: pin.source_sha256 for pin in plan.transforms} if plan else {},
            result_sha256=self._result.hexdigest(),
        )


def span_of(moments: pa.ChunkedArray) -> tuple[datetime, datetime] | None:
    """The first and the last of some moments, UTC; None of no rows."""
    ends = pc.min_max(moments).as_py()
    if ends["min"] is None:
        return None
    return ends["min"].astimezone(UTC), ends["max"].astimezone(UTC)


class _Tally:
    """Counts what becomes of rows in one view."""

    def __init__(self, read: ViewRead) -> None:
        self._reasons = {r.name: 0 for r in NullReason if r != NullReason.LAST_KNOWN}
        self._nulls = dict.fromkeys(read.columns, 0)
        self._oldest: int | None = None

    def add(self, joined: JoinedView, at: np.ndarray) -> None:
        """Count the rows of one piece, whose moments are ``at`` in microseconds."""
        for name, count in joined.counts.items():
            self._reasons[name] = self._reasons.get(name, 0) + count
        for name, column in joined.columns.items():
            self._nulls[name] += _null_count(column)
        used = ~np.isnat(joined.event_times)
        if used.any():
            oldest = int((at[used] - joined.event_times.view(np.int64)[used]).max())
            self._oldest = max(oldest, self._oldest or 0)

    def certificate(self, read: ViewRead, source: SourceRead) -> ViewCertificate:
        return ViewCertificate(
            read=read,
            source=source,
            reasons=self._reasons,
            null_counts=self._nulls,
            oldest_seconds=None if self._oldest is None else self._oldest / 1_000_000,
        )


def _both(
    one: tuple[datetime, datetime] | None, other: tuple[datetime, datetime] | None
) -> tuple[datetime, datetime] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _null_count(column: Column) -> int:
    if isinstance(column, np.ndarray):
        return int(np.isnan(column).sum())
    # NaN is a missing number, however it is stored.
    return int(pc.sum(pc.is_null(column, nan_is_null=True)).as_py() or 0)
