"""The step of a feature check: judge every view, keep the report, show it."""

from typing import NamedTuple

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from featurestore.catalog.catalog import load_catalog
from headrace.settings import Settings
from monitoring.alerts import Alert
from monitoring.feature_report import FeatureReport, ViewHealth
from monitoring.limits import age_in_words
from tasks.feature_health import check_views, keep_report
from tasks.feature_windows import Windows, moment_of
from tasks.step import step

RAISED_BY = "check-features"


class Checked(NamedTuple):
    """A report, and where it lies."""

    health: FeatureReport
    uri: str


@step("check the feature views at {at}")
def check(settings: Settings, *, at: str, days: int, past: int) -> Checked:
    """Judge every feature view and keep the report. Safe to run twice: it is replaced.

    Args:
        settings: where the stores are.
        at: what counts as now, as ``moment_of`` reads it.
        days: length of the window that is judged.
        past: how many windows of that length before it are the reference.
    """
    logger = get_run_logger()
    catalog = load_catalog(settings)
    moment = moment_of(settings, catalog, at)
    windows = Windows.before(moment, days=days, past=past)
    logger.info("%d views: %s against %s", len(catalog.views), windows.current, windows.reference)
    health = check_views(settings, catalog, windows)
    uri = keep_report(settings, health)
    create_table_artifact(
        table=[_row(view, health) for view in health.views],
        key="feature-health",
        description=health.sentence,
    )
    logger.info("%s", health.sentence)
    return Checked(health, uri)


def as_alerts(health: FeatureReport) -> list[Alert]:
    """The findings of a report as alerts."""
    return [
        Alert(
            raised_by=RAISED_BY,
            kind=finding.kind,
            subject=f"{finding.view}.{finding.feature}" if finding.feature else finding.view,
            sentence=finding.sentence,
            at=health.at,
        )
        for finding in health.findings
    ]


def _row(view: ViewHealth, health: FeatureReport) -> dict[str, object]:
    rates = [feature.null_rate for feature in view.features if feature.null_rate is not None]
    moved = [feature.psi for feature in view.features if feature.psi is not None]
    return {
        "view": view.view,
        "age": "" if view.age_seconds is None else age_in_words(view.age_seconds),
        "limit": _limit(view),
        "online until": str(view.freshness.online_until or view.freshness.online),
        "most missing": f"{max(rates):.1%}" if rates else "",
        "largest PSI": f"{max(moved):.3f}" if moved else "",
        "findings": ", ".join(f.kind for f in health.findings if f.view == view.view),
    }


def _limit(view: ViewHealth) -> str:
    limit = view.limits.max_age_seconds
    return "none" if limit is None else age_in_words(limit)
