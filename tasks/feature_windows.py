"""Read what a feature check looks at: how far a table reaches, and the profiles of its windows.

A million rows are in memory at a time; a profile has a fixed size, whatever the table has.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.catalog.catalog import Catalog
from featurestore.columns import (
    TIMESTAMP,
    check_timestamps,
    feature_column,
    floats,
    microseconds,
)
from featurestore.offline.tables import scan_table, table_schema, table_span
from headrace.errors import HeadraceError, SchemaMismatch, UsageError
from headrace.plan import NUMBERS, FeatureRead, ViewRead
from headrace.settings import Settings
from headrace.window import Window, as_microseconds, midnight
from monitoring.feature_health import has_values
from monitoring.limits import Limits
from monitoring.profile import Profile, merge, profile_like, reference_profile


class MomentUnclear(UsageError):
    """A moment that is neither a day nor one of the two words."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text!r} is no moment: write data, now, or a day such as 2013-08-01.")


class Windows(NamedTuple):
    """What counts as now, what is judged, and what it is compared with."""

    at: datetime
    current: Window
    past: int
    """How many windows of the same length before it make up the reference."""

    @classmethod
    def before(cls, at: datetime, *, days: int, past: int) -> "Windows":
        """The last ``days`` before a moment, and ``past`` times as many before those."""
        return cls(at, Window(since=at - timedelta(days=days), until=at), past)

    @property
    def reference(self) -> Window:
        """All windows before the current one."""
        first = self.current.since - self.past * (self.current.until - self.current.since)
        return Window(since=first, until=self.current.since)


def moment_of(settings: Settings, catalog: Catalog, text: str) -> datetime:
    """The moment that counts as now.

    Args:
        settings: where the tables are.
        catalog: whose views' tables count.
        text: ``data`` for just after the newest value of any table, ``now`` for the clock, or a
            day, which begins at midnight UTC.

    Raises:
        MomentUnclear: for another word.
        SchemaMismatch: if no table has rows.
    """
    if text == "now":
        return datetime.now(UTC)
    if text == "data":
        newest = max(_newest_known(settings, catalog))
        return newest.replace(microsecond=0) + timedelta(seconds=1)
    try:
        return midnight(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date())
    except ValueError as error:
        raise MomentUnclear(text) from error


def newest(root: str, view: ViewRead, windows: Windows) -> tuple[datetime | None, datetime | None]:
    """The latest event and known time of what was known by then; None where nothing was.

    Where all of the table was, the statistics of its files say it; else two columns are read.
    """
    check_timestamps(view.table, table_schema(root, view.table), view.timestamps)
    latest = [table_span(root, view.table, name)[1] for name in view.timestamps]
    if max(latest) <= windows.at:
        return latest[0], latest[-1]
    event, known = None, None
    where = _known_by(view, windows.at)
    for part in scan_table(root, view.table, columns=view.timestamps, where=where):
        event = _later(event, part[view.event_timestamp])
        known = _later(known, part[view.known_timestamp])
    return event, known


def _later(moment: datetime | None, column: pa.ChunkedArray) -> datetime | None:
    latest = pc.max(column).as_py()
    return max((m for m in (moment, latest) if m is not None), default=None)


def _known_by(view: ViewRead, at: datetime) -> pc.Expression:
    end = pa.scalar(at, TIMESTAMP)
    return (pc.field(view.event_timestamp) <= end) & (pc.field(view.known_timestamp) <= end)


def profiles(
    root: str, view: ViewRead, windows: Windows, limits: Limits
) -> tuple[list[Profile], Profile | None]:
    """The profiles of the past windows that have rows, and of the current one if it has.

    Read a million rows at a time; the first million sets the bins for all. A view that may be of
    any age and has no new values is profiled whole: what it holds is what models read.
    """
    event, at = pc.field(view.event_timestamp), windows.at
    inside = event >= pa.scalar(windows.reference.since, TIMESTAMP)
    found: dict[int, Profile] = {}
    for part in _parts(root, view, inside & _known_by(view, at)):
        window = _window_of(part, view, windows)
        _add(found, {f.name: _values(part, view.table, f) for f in view.features}, window)
    if not found and limits.max_age_seconds is None:
        for part in _parts(root, view, _known_by(view, at)):
            whole = np.zeros(part.num_rows, np.int64)
            _add(found, {f.name: _values(part, view.table, f) for f in view.features}, whole)
    return [found[i] for i in sorted(found) if i], found.get(0)


def _parts(root: str, view: ViewRead, where: pc.Expression) -> Iterator[pa.Table]:
    columns = [*view.timestamps, *(feature.name for feature in view.features)]
    parts = scan_table(root, view.table, columns=columns, where=where)
    return (part for part in parts if part.num_rows)


def _window_of(part: pa.Table, view: ViewRead, windows: Windows) -> np.ndarray:
    """The window of each row, int64, shape (rows,): 0 the current one, 1 the one before it ..."""
    last = as_microseconds(windows.at) - 1
    length = (windows.current.until - windows.current.since) // timedelta(microseconds=1)
    event = microseconds(part, view.table, view.event_timestamp)
    found: np.ndarray = np.maximum((last - event) // length, 0)  # what is true just now is current
    return found


def _add(found: dict[int, Profile], values: dict[str, np.ndarray], window: np.ndarray) -> None:
    bins = next(iter(found.values()), None) or reference_profile(values)
    for i in np.unique(window).tolist():
        one = profile_like(bins, {name: column[window == i] for name, column in values.items()})
        found[i] = merge(found[i], one) if i in found else one


def _values(part: pa.Table, table: str, feature: FeatureRead) -> np.ndarray:
    if feature.dtype in NUMBERS:
        return floats(feature_column(part, table, feature))
    column = part[feature.name]
    if has_values(feature.dtype):
        return np.array(column.to_pylist(), dtype=object)
    return np.where(column.is_null().to_numpy(), np.nan, 0.0)


def _newest_known(settings: Settings, catalog: Catalog) -> Iterator[datetime]:
    problem: HeadraceError = SchemaMismatch("the catalog", ["it has no feature views"])
    some = False
    for view in catalog.views:
        try:
            yield table_span(settings.uri("offline"), view.table, view.known_timestamp)[1]
            some = True
        except HeadraceError as error:  # the check itself names it, as a finding
            problem = error
    if not some:
        raise problem
