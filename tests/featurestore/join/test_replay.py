from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from featurestore.join.replay import replay, versions
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan, pin
from headrace.spec import RequestField
from headrace.transform import find_transform

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = pin(find_transform("flights.scheduled_hour"))


def minute(n):
    return None if n is None else START + timedelta(minutes=n)


def times(minutes):
    return pa.array(map(minute, minutes), pa.timestamp("us", "UTC"))


@pytest.fixture
def plan(read):
    return FeaturePlan(
        project="tiny",
        feature_service="v1",
        definitions_sha256="0",
        event_timestamp="scheduled_departure",
        views=(read(),),
        request=(
            RequestField(name="scheduled_departure", dtype="timestamp", description="when"),
            RequestField(name="seats", dtype="int64", description="how many"),
        ),
        inputs_from_request=("seats",),
        transforms=(HOUR,),
    )


@pytest.fixture
def log():
    """Two logged rows of JFK and one of LGA; the seats as the model saw them, float32."""
    return pa.table(
        {
            "origin": ["JFK", "JFK", "LGA"],
            "scheduled_departure": times([90, 300, 90]),
            "seats": pa.array([7.0, 8.0, 9.0], pa.float32()),
            "hourly__x": pa.array([1.0, np.nan, np.nan], pa.float32()),
            "event_time__hourly": times([60, None, None]),
        }
    )


@pytest.fixture
def root(tmp_path, put_table, values):
    rows = values(("JFK", 0, 0, 0.5), ("JFK", 60, 60, 1.0), ("JFK", 120, 120, 2.0))
    put_table(str(tmp_path), "hourly", rows)
    return str(tmp_path)


def test_logged_rows_are_joined_at_their_own_moments(log, plan, root):
    found = replay(log, plan, root)
    np.testing.assert_array_equal(found.joined["hourly__x"], [1, np.nan, np.nan])
    assert found.joined["event_time__hourly"].to_pylist() == [minute(60), None, None]
    assert found.joined["status__hourly"].to_pylist() == ["present", "expired", "never_seen"]
    assert found.joined["seats"].to_pylist() == [7, 8, 9]
    np.testing.assert_array_equal(found.recomputed["scheduled_hour"], [20.5, 0, 20.5])
    assert found.changed_transforms == ()


def test_a_transform_that_is_not_the_pinned_one_is_named(log, plan, root):
    other = HOUR.model_copy(update={"source_sha256": "0" * 64})
    changed = plan.model_copy(update={"transforms": (other,)})
    assert replay(log, changed, root).changed_transforms == ("flights.scheduled_hour",)


def test_a_log_without_the_moment_is_refused(log, plan, root):
    with pytest.raises(SchemaMismatch, match=r"\['scheduled_departure'\] are missing"):
        replay(log.drop_columns(["scheduled_departure"]), plan, root)


def test_the_versions_are_the_rows_that_either_side_used(log, plan, root):
    joined = log.set_column(
        log.column_names.index("event_time__hourly"), "event_time__hourly", times([120, None, 0])
    )
    found = versions(root, plan.views[0], log, joined)
    assert found["x"].to_pylist() == [0.5, 1.0, 2.0]
    assert versions(root, plan.views[0], log, log)["x"].to_pylist() == [1.0]
