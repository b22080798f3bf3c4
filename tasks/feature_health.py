"""The steps of a feature check: read each view's windows, judge them, keep the report.

A report lies in ``<storage>/features/<moment>.json``; the newest moment is what discovery shows.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from featurestore.catalog import Catalog
from featurestore.columns import TIMESTAMP, check_timestamps, feature_column, floats
from featurestore.offline import scan_table, table_schema, table_span
from headrace import storage
from headrace.errors import HeadraceError, SchemaMismatch, UsageError
from headrace.plan import NUMBERS, FeatureRead, ViewRead
from headrace.settings import Settings
from headrace.window import Window, midnight
from monitoring.feature_health import (
    FeatureReport,
    Finding,
    Freshness,
    ViewHealth,
    has_values,
    judge_features,
    judge_freshness,
)
from monitoring.limits import Limits, limits_of
from monitoring.profile import Profile, merge, profile_like, reference_profile
from tasks.online_records import online_records

if TYPE_CHECKING:
    from featurestore.stored import StoredView

REPORTS = "features"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MomentUnclear(UsageError):
    """A moment that is neither a day nor one of the two words."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text!r} is no moment: write data, now, or a day such as 2013-08-01.")


class Windows(NamedTuple):
    """What counts as now, what is judged, and what it is compared with."""

    at: datetime
    current: Window
    reference: Window

    @classmethod
    def before(cls, at: datetime, *, days: int, reference_days: int) -> "Windows":
        """The last ``days`` before a moment, and the ``reference_days`` before those."""
        since = at - timedelta(days=days)
        first = since - timedelta(days=reference_days)
        return cls(at, Window(since=since, until=at), Window(since=first, until=since))


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


def check_views(settings: Settings, catalog: Catalog, windows: Windows) -> FeatureReport:
    """Judge every view. It reads the two windows and writes nothing.

    A view whose table cannot be read is a finding, and the others are judged all the same.

    Raises:
        LimitRefused: for a tag of a view that is no limit.
    """
    limits = {view.view: _limits(catalog, view) for view in catalog.views}
    records = online_records(settings, catalog.project)
    views: list[ViewHealth] = []
    findings: list[Finding] = []
    for view in catalog.views:
        health, found = _check_view(settings, view, windows, limits[view.view], records)
        views.append(health)
        findings += found
    return FeatureReport(
        at=windows.at,
        current=windows.current,
        reference=windows.reference,
        views=tuple(views),
        findings=tuple(findings),
    )


def keep_report(settings: Settings, report: FeatureReport) -> str:
    """Write a report and return where. Safe to run twice: one moment is one file."""
    uri = settings.uri(REPORTS, f"{report.at.astimezone(UTC):%Y%m%dT%H%M%SZ}.json")
    storage.write_atomic(uri, report.model_dump_json(indent=1).encode())
    return uri


def latest_report(settings: Settings) -> FeatureReport | None:
    """The report of the latest moment; None if no check has ever run here.

    One that another version of Headrace wrote counts as none: the next check replaces it.
    """
    names = [n for n in storage.list_names(settings.uri(REPORTS)) if n.endswith(".json")]
    if not names:
        return None
    try:
        return FeatureReport.model_validate_json(
            storage.read_bytes(settings.uri(REPORTS, names[-1]))
        )
    except ValidationError:
        return None


def _limits(catalog: Catalog, view: ViewRead) -> Limits:
    said = catalog.described.views.get(view.view)
    return limits_of(view.view, said.tags if said else {}, ttl_seconds=view.ttl_seconds)


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


def _check_view(
    settings: Settings,
    view: ViewRead,
    windows: Windows,
    limits: Limits,
    records: "dict[str, StoredView] | None",
) -> tuple[ViewHealth, tuple[Finding, ...]]:
    root = settings.uri("offline")
    try:
        newest_event, newest_known = _newest(root, view, windows)
        reference = _profile(root, view, windows.reference, windows.at, like=None)
        current = _profile(root, view, windows.current, windows.at, like=reference)
        dtypes = {feature.name: feature.dtype for feature in view.features}
        features, found = judge_features(
            view.view, dict(dtypes), reference=reference, current=current, limits=limits
        )
    except HeadraceError as error:
        unreadable = Finding(kind="unreadable", view=view.view, sentence=f"{view.view}: {error}")
        nothing = Freshness()
        health = ViewHealth(view=view.view, freshness=nothing, age_seconds=None, limits=limits)
        return health, (unreadable,)
    freshness = Freshness(
        newest_event=newest_event, newest_known=newest_known, **_online(view.view, records)
    )
    age = (windows.at - newest_event).total_seconds() if newest_event else None
    health = ViewHealth(
        view=view.view, freshness=freshness, age_seconds=age, limits=limits, features=features
    )
    return health, judge_freshness(view.view, freshness, limits, at=windows.at) + found


def _online(view: str, records: "dict[str, StoredView] | None") -> dict[str, object]:
    if records is None:
        return {"online": "unknown"}
    if view not in records:
        return {"online": "missing"}
    until = records[view].until_us
    moment = None if until is None else _EPOCH + timedelta(microseconds=until)
    return {"online": "loading" if records[view].loading else "there", "online_until": moment}


def _newest(root: str, view: ViewRead, windows: Windows) -> tuple[datetime | None, datetime | None]:
    """The latest event and known time of what was known by then; two columns of the table."""
    check_timestamps(view.table, table_schema(root, view.table), view.timestamps)
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


def _profile(
    root: str, view: ViewRead, window: Window, at: datetime, *, like: Profile | None
) -> Profile | None:
    """The profile of a window, a million rows at a time; None where it has no rows.

    The first million of a reference window sets the bins for the rest.
    """
    event = pc.field(view.event_timestamp)
    inside = (event >= pa.scalar(window.since, TIMESTAMP)) & (
        event < pa.scalar(window.until, TIMESTAMP)
    )
    columns = [*view.timestamps, *(feature.name for feature in view.features)]
    found: Profile | None = None
    for part in scan_table(root, view.table, columns=columns, where=inside & _known_by(view, at)):
        values = {f.name: _values(part, view.table, f) for f in view.features}
        bins = like or found
        one = profile_like(bins, values) if bins else reference_profile(values)
        found = merge(found, one) if found else one
    return found


def _values(part: pa.Table, table: str, feature: FeatureRead) -> np.ndarray:
    if feature.dtype in NUMBERS:
        return floats(feature_column(part, table, feature))
    column = part[feature.name]
    if has_values(feature.dtype):
        return np.array(column.to_pylist(), dtype=object)
    return np.where(column.is_null().to_numpy(), np.nan, 0.0)
