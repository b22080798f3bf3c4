"""Every cause is seeded in plain tables, and must be found, counted and named."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from headrace.plan import FeaturePlan, FeatureRead, JoinKey, TransformPin, ViewRead
from headrace.spec import RequestField
from monitoring.skew import compare, rows_with_reads, sentence
from monitoring.skew_causes import Cause

START = datetime(2013, 1, 1, tzinfo=UTC)
TIMESTAMP = pa.timestamp("us", "UTC")
WEATHER = ViewRead(
    view="weather",
    table="weather",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event",
    created_timestamp="created",
    ttl_seconds=3600,
    features=(FeatureRead(name="wind", dtype="DOUBLE"), FeatureRead(name="rain", dtype="DOUBLE")),
)
PLAN = FeaturePlan(
    project="tiny",
    feature_service="v1",
    definitions_sha256="0",
    event_timestamp="at",
    views=(WEATHER,),
    request=(RequestField(name="at", dtype="timestamp", description="when"),),
    inputs_from_request=(),
    transforms=(
        TransformPin(
            name="t.windy", inputs=("weather__wind",), output="windy", source_sha256="abc"
        ),
    ),
)


def minute(n):
    return None if n is None else START + timedelta(minutes=n)


def side(status="present", event=60, wind=1.0, rain=0.5, windy=2.0):
    """One side of a row: what it says of the weather, and the transform of the wind."""
    values = {"weather__wind": wind, "weather__rain": rain, "windy": windy}
    times = {"event_time__weather": event, "status__weather": status}
    return values | times


NOTHING = {"event": None, "wind": None, "rain": None, "windy": None}


def table_of(sides, *, at=90, received=10_000):
    rows = len(sides)
    columns = {name: [s[name] for s in sides] for name in side()}
    times = {"at": [at] * rows, "received_at": [received] * rows}
    times["event_time__weather"] = columns.pop("event_time__weather")
    return pa.table(
        {name: pa.array(map(minute, values), TIMESTAMP) for name, values in times.items()}
        | {
            "request_id": [f"r{i}" for i in range(rows)],
            "row": pa.array([0] * rows, pa.int32()),
            "origin": ["JFK"] * rows,
            "status__weather": pa.array(columns.pop("status__weather"), pa.string()),
        }
        | {name: pa.array(values, pa.float64()) for name, values in columns.items()}
    )


def versions_of(*rows):
    """The offline table: (event minute, created minute, wind, rain) a row, all of JFK."""
    events, created, wind, rain = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "origin": pa.array(["JFK"] * len(rows), pa.string()),
            "event": pa.array(map(minute, events), TIMESTAMP),
            "created": pa.array(map(minute, created), TIMESTAMP),
            "wind": pa.array(wind, pa.float64()),
            "rain": pa.array(rain, pa.float64()),
        }
    )


def report_of(logged, joined, *versions, **options):
    recomputed = options.pop("recomputed", None)
    changed = options.pop("changed", ())
    log = table_of([logged], **options)
    windy = log["windy"].to_numpy(zero_copy_only=False) if recomputed is None else recomputed
    return compare(
        PLAN,
        log,
        table_of([joined], **options),
        digest="d",
        versions_of=lambda _: versions_of(*versions),
        recomputed={"windy": np.asarray(windy, float)},
        changed_transforms=changed,
    )


def causes_of(report):
    return {(found.source, found.cause, found.values) for found in report.findings}


def test_two_sides_that_agree_are_no_skew():
    report = report_of(side(), side(wind=1.0 + 1e-9), (60, 60, 1.0, 0.5))
    assert (report.mismatches, report.values, report.rows, report.skewed) == (0, 4, 1, False)
    both_missing = report_of(side("expired", **NOTHING), side("never_seen", **NOTHING))
    assert both_missing.mismatches == 0
    assert sentence([report]) == "no skew: 4 values of 1 rows are what the join says"


OLD, NEW = (0, 0, 9.0, 0.5), (60, 60, 1.0, 0.5)


@pytest.mark.parametrize(
    ("logged", "joined", "versions", "cause"),
    [
        # Not materialised yet: an older event, or an older version of the same.
        (side(event=0, wind=9), side(), [OLD, NEW], Cause.STALE),
        (side(wind=9), side(), [(60, 60, 9.0, 0.5), (60, 70, 1.0, 0.5)], Cause.STALE),
        # A value too old for one side.
        (side("expired", **NOTHING), side(), [NEW], Cause.EXPIRED),
        (side(event=0, wind=9), side("expired", **NOTHING), [OLD], Cause.EXPIRED),
        # Online used what was not known at the row's moment, minute 90.
        (side(event=95, wind=9), side(), [NEW, (95, 95, 9.0, 0.5)], Cause.LATE_WRITE),
        (side(event=70, wind=9), side(), [NEW, (70, 95, 9.0, 0.5)], Cause.LATE_WRITE),
        (side(wind=9), side(), [NEW, (60, 95, 9.0, 0.5)], Cause.LATE_WRITE),
        (side(event=95, wind=9), side("future", **NOTHING), [], Cause.LATE_WRITE),
        (side(event=70), side("written_late", **NOTHING), [(70, 95, 1, 0.5)], Cause.LATE_WRITE),
        # The same row of the table, another number.
        (side(wind=1.001), side(), [NEW], Cause.CAST),
        (side(wind=1), side(wind=1.6), [(60, 60, 1.6, 0.5)], Cause.CAST),
        (side(wind=None), side(), [NEW], Cause.CAST),
        (side(event=60, wind=1), side(event=60.005), [(60.005, 60.005, 1.0, 0.5)], Cause.CAST),
        # The store keeps the latest value alone.
        (side("future", **NOTHING), side(), [NEW], Cause.OVERTAKEN),
        (side(wind=9), side(), [NEW, (60, 60, 9.0, 0.5)], Cause.TIE),
        (side("never_seen", **NOTHING), side(), [NEW], Cause.MISSING),
        (side(event=70, wind=9), side(), [NEW], Cause.MISSING),
        (side(event=70), side("never_seen", **NOTHING), [], Cause.MISSING),
        (side("unavailable", **NOTHING), side(), [NEW], Cause.UNAVAILABLE),
        # Nothing fits: said, not hidden.
        (side("odd", **NOTHING), side(), [NEW], Cause.UNEXPLAINED),
        (side(event=70, wind=9), side(), [NEW, (70, 70, 9.0, 0.5)], Cause.UNEXPLAINED),
    ],
)
def test_a_seeded_fault_is_found_and_named(logged, joined, versions, cause):
    report = report_of(logged, joined, *versions)
    assert report.skewed
    assert {(found.source, found.cause) for found in report.findings if found.source == "weather"}
    assert {found.cause for found in report.findings} == {cause}
    assert report.examples[0].request_id == "r0"


def test_what_became_known_only_after_the_request_is_a_late_write():
    asked_ahead = report_of(side(event=0, wind=9), side(), OLD, NEW, received=30)
    assert {found.cause for found in asked_ahead.findings} == {Cause.LATE_WRITE}
    corrected = report_of(side(wind=9), side(), (60, 60, 9, 0.5), (60, 80, 1, 0.5), received=70)
    assert {found.cause for found in corrected.findings} == {Cause.LATE_WRITE}


def test_a_transform_that_gives_another_value_from_the_same_inputs_is_named():
    report = report_of(side(windy=7.0), side(), NEW, recomputed=[2.0])
    assert causes_of(report) == {("t.windy", Cause.TRANSFORM_VERSION, 1)}
    (example,) = report.examples
    assert (example.column, example.logged, example.joined) == ("windy", 7.0, 2.0)


def test_a_transform_of_a_stale_input_is_stale_unless_it_computes_otherwise_too():
    stale = side(event=0, wind=9.0, windy=18.0)
    follows = report_of(stale, side(), OLD, NEW, recomputed=[18.0])
    assert causes_of(follows) == {
        ("weather", Cause.STALE, 2),
        ("t.windy", Cause.STALE, 1),
    }
    differs = report_of(stale, side(), OLD, NEW, recomputed=[27.0])
    assert ("t.windy", Cause.TRANSFORM_VERSION, 1) in causes_of(differs)


def test_a_changed_transform_is_skew_even_where_its_values_agree():
    report = report_of(side(), side(), NEW, changed=["t.windy"])
    assert report.skewed
    assert sentence([report]) == "skew: changed transforms: t.windy"


def test_values_are_counted_and_shared_out():
    report = report_of(side(event=0, wind=9, windy=18), side(), OLD, NEW)
    weather, windy = report.findings
    assert (weather.values, weather.rows, weather.share) == (2, 1, pytest.approx(2 / 3))
    assert (windy.source, windy.values, windy.share) == ("t.windy", 1, 1.0)
    assert sentence([report]) == "skew: 3 stale of 4 values of 1 rows"


def test_rows_of_raw_features_are_told_from_those_with_reads():
    log = table_of([side(), side(None, event=None, wind=5.0)])
    assert rows_with_reads(PLAN, log).tolist() == [True, False]


def test_examples_are_few_and_counts_are_not():
    log = table_of([side(event=0)] * 50)
    report = compare(
        PLAN,
        log,
        table_of([side()] * 50),
        digest="d",
        versions_of=lambda _: versions_of(OLD, NEW),
        recomputed={},
    )
    assert report.mismatches == 50
    assert len(report.examples) == 3
