"""Check every feature view and keep the report, in plain functions.

A report lies in ``<storage>/features/<moment>.json``; the newest moment is what discovery shows.
"""

from datetime import UTC

from pydantic import ValidationError

from featurestore.catalog.catalog import Catalog
from featurestore.stores.stored import StoredView
from headrace import storage
from headrace.errors import HeadraceError
from headrace.plan import ViewRead
from headrace.settings import Settings
from monitoring.feature_health import judge_features, judge_freshness
from monitoring.feature_report import FeatureReport, Finding, Freshness, ViewHealth
from monitoring.limits import Limits, limits_of
from tasks.feature_windows import Windows, newest, profiles
from tasks.online_records import online_records, state_of

REPORTS = "features"


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


def _check_view(
    settings: Settings,
    view: ViewRead,
    windows: Windows,
    limits: Limits,
    records: dict[str, StoredView] | None,
) -> tuple[ViewHealth, tuple[Finding, ...]]:
    root = settings.uri("offline")
    try:
        newest_event, newest_known = newest(root, view, windows)
        past, current = profiles(root, view, windows, limits)
        dtypes: dict[str, str] = {feature.name: feature.dtype for feature in view.features}
        features, found = judge_features(
            view.view, dtypes, past=past, current=current, limits=limits
        )
    except HeadraceError as error:
        unreadable = Finding(kind="unreadable", view=view.view, sentence=f"{view.view}: {error}")
        nothing = Freshness()
        health = ViewHealth(view=view.view, freshness=nothing, age_seconds=None, limits=limits)
        return health, (unreadable,)
    stored = (records or {}).get(view.view)
    freshness = Freshness(
        newest_event=newest_event,
        newest_known=newest_known,
        online=state_of(records, view.view),
        online_until=stored.until if stored else None,
    )
    age = (windows.at - newest_event).total_seconds() if newest_event else None
    health = ViewHealth(
        view=view.view, freshness=freshness, age_seconds=age, limits=limits, features=features
    )
    return health, judge_freshness(view.view, freshness, limits, at=windows.at) + found
