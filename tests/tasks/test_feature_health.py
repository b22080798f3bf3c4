from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import Catalog
from headrace import storage
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings
from tasks.feature_health import check_views, keep_report, latest_report
from tasks.feature_windows import MomentUnclear, Windows, moment_of

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)
HOURS = 24 * 9
STAMP = pa.timestamp("us", tz="UTC")
WEATHER = ViewRead(
    view="weather",
    table="weather",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event",
    created_timestamp="created",
    ttl_seconds=7200.0,
    features=(
        FeatureRead(name="wind", dtype="DOUBLE"),
        FeatureRead(name="sky", dtype="STRING"),
        FeatureRead(name="gusts", dtype="DOUBLE_LIST"),
    ),
)
DAYS = Windows.before(NOON, days=1, past=7)


@pytest.fixture
def checked(tmp_path):
    """Nine days of hourly weather until an hour before noon, changed by the test, and checked."""
    settings = Settings(home=tmp_path, online_store="feast")
    (tmp_path / "storage" / "offline").mkdir(parents=True)
    random = np.random.default_rng(7)

    def check(change=lambda columns, age: None, *, windows=DAYS, view=WEATHER):
        age = np.repeat(np.arange(HOURS, 0, -1), 10)
        event = pa.array([NOON - timedelta(hours=int(hours)) for hours in age], STAMP)
        columns = {
            "event": event,
            "created": event,
            "wind": random.normal(10.0, 2.0, age.size),
            "sky": random.choice(np.array(["clear", "rain"], object), age.size),
            "gusts": pa.array([[1.0]] * age.size),
        }
        change(columns, age)
        table = pa.table({name: column for name, column in columns.items() if column is not None})
        pq.write_table(table, settings.uri("offline", "weather.parquet"), write_page_checksum=True)
        catalog = Catalog(project="p", definitions_sha256="", views=(view,), services={})
        return check_views(settings, catalog, windows)

    return check


def kinds(report):
    return [(finding.kind, finding.feature) for finding in report.findings]


def test_quiet_weather_is_healthy_and_every_type_is_counted(checked):
    report = checked()
    assert kinds(report) == []
    (view,) = report.views
    assert [(f.name, f.rows, f.null_rate) for f in view.features] == [
        ("wind", 240, 0.0),
        ("sky", 240, 0.0),
        ("gusts", 240, 0.0),
    ]
    assert [f.psi is None for f in view.features] == [False, False, True]
    assert (view.age_seconds, view.freshness.online) == (3600.0, "unknown")
    assert report.sentence == "All 1 feature views are healthy."


def test_a_shift_of_numbers_and_of_words_on_the_last_day_is_found(checked):
    def change(columns, age):
        columns["wind"][age <= 24] += 8.0
        columns["sky"][age <= 24] = "fog"

    assert kinds(checked(change)) == [("drift", "wind"), ("drift", "sky")]


def test_values_that_go_missing_on_the_last_day_are_found_whatever_their_type(checked):
    def change(columns, age):
        columns["gusts"] = pa.array([None if a <= 24 and a % 2 else [1.0] for a in age])

    assert kinds(checked(change)) == [("nulls", "gusts")]


def test_what_was_written_after_the_moment_does_not_count(checked):
    def change(columns, age):
        columns["created"] = pa.array([NOON + timedelta(hours=1)] * age.size, STAMP)

    assert kinds(checked(change)) == [("stale", None)]


def test_a_view_older_than_its_ttl_is_stale(checked):
    late = Windows.before(NOON + timedelta(hours=2), days=1, past=7)
    assert kinds(checked(windows=late)) == [("stale", None)]


def test_a_view_of_any_age_without_new_rows_is_counted_whole(checked):
    later = Windows.before(NOON + timedelta(days=90), days=1, past=7)
    report = checked(windows=later, view=WEATHER.model_copy(update={"ttl_seconds": None}))
    assert kinds(report) == []
    assert report.views[0].features[0].rows == HOURS * 10


def test_a_view_that_cannot_be_read_is_a_finding(checked):
    def change(columns, _):
        columns["wind"] = None

    (finding,) = checked(change).findings
    assert finding.kind == "unreadable"
    assert "columns ['wind'] are missing" in finding.sentence


def test_the_report_of_the_latest_moment_is_the_one_that_is_shown(checked, tmp_path):
    settings, report = Settings(home=tmp_path), checked()
    assert latest_report(settings) is None
    later = report.model_copy(update={"at": NOON + timedelta(days=1)})
    for one in (later, report):
        keep_report(settings, one)
    assert latest_report(settings) == later
    storage.write_atomic(settings.uri("features", "99991231T000000Z.json"), b"{}")
    assert latest_report(settings) is None


def test_a_word_that_is_no_moment_is_refused(tmp_path):
    with pytest.raises(MomentUnclear, match="write data, now, or a day such as 2013-08-01"):
        moment_of(Settings(home=tmp_path), None, "yesterday")
