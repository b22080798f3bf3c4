from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.vectors import input_matrix, request_columns
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan, pin
from headrace.spec import RequestField
from headrace.transform import transform

MOMENT = datetime(2013, 1, 1, 12, tzinfo=UTC)


@transform("distance", "hourly__x")
def distance_times_x(distance, x):
    return distance * x


@transform("origin")
def is_jfk(origin):
    return origin == "JFK"


@pytest.fixture
def plan(read):
    return FeaturePlan(
        project="tiny",
        feature_service="both",
        definitions_sha256="",
        event_timestamp="at",
        views=(read(),),
        request=(
            RequestField(name="distance", description="miles"),
            RequestField(name="seats", dtype="int64", description="count"),
            RequestField(name="terminal", dtype="string", description="letter"),
        ),
        inputs_from_request=("distance",),
        transforms=(pin(distance_times_x), pin(is_jfk)),
    )


@pytest.fixture
def rows():
    return pa.table(
        {
            "origin": ["JFK", None],
            "at": pa.array([MOMENT, MOMENT], pa.timestamp("us", tz="UTC")),
            "distance": [100.5, None],
            "seats": pa.array([3, None], pa.int32()),
            "terminal": ["A", None],
            "other": [1, 2],
        }
    )


def test_the_matrix_has_the_plans_columns_in_their_order(plan, rows):
    matrix = input_matrix(
        plan,
        [distance_times_x, is_jfk],
        {"hourly__x": np.array([2.0, 3.0])},
        request_columns(plan, rows),
    )
    assert plan.columns == ("hourly__x", "distance", "distance_times_x", "is_jfk")
    expected = [[2, 100.5, 201, 1], [3, np.nan, np.nan, 0]]
    np.testing.assert_array_equal(matrix, np.array(expected, dtype=np.float32))
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous


def test_request_columns_are_numpy_columns_with_missing_numbers_as_nan(plan, rows):
    columns = request_columns(plan, rows)
    assert set(columns) == {"at", "distance", "seats", "terminal", "origin"}
    np.testing.assert_array_equal(columns["seats"], [3, np.nan])
    assert columns["terminal"].tolist() == ["A", None]
    assert columns["at"].dtype == np.dtype("datetime64[us]")
    assert columns["at"][0] == np.datetime64("2013-01-01T12:00")


def test_missing_and_mistyped_request_columns_are_all_named(plan, rows):
    wrong = rows.drop_columns(["distance"]).set_column(1, "at", pa.array(["noon", "noon"]))
    wrong = wrong.set_column(wrong.column_names.index("seats"), "seats", pa.array([1.5, 2.5]))
    with pytest.raises(SchemaMismatch) as refused:
        request_columns(plan, wrong.select(["at", "seats", "terminal", "other"]))
    assert refused.value.problems == (
        "at is string, but must be timestamp[us, tz=UTC]",
        "column distance (float64) is missing",
        "seats is double, but must be int64",
        "column origin (key) is missing",
    )


def test_a_column_of_nulls_only_may_have_no_type(plan, rows):
    empty = rows.set_column(rows.column_names.index("seats"), "seats", pa.nulls(2))
    assert np.isnan(request_columns(plan, empty)["seats"]).all()


def test_a_null_moment_is_refused(plan, rows):
    nulls = pa.array([None, MOMENT], pa.timestamp("us", tz="UTC"))
    with pytest.raises(SchemaMismatch, match="at is null in 1 rows"):
        request_columns(plan, rows.set_column(1, "at", nulls))


def test_a_missing_read_or_uneven_columns_are_refused(plan, rows):
    request = request_columns(plan, rows)
    with pytest.raises(SchemaMismatch, match=r"columns \['hourly__x'\] are missing"):
        input_matrix(plan, [distance_times_x, is_jfk], {}, request)
    uneven = plan.model_copy(update={"transforms": ()})
    with pytest.raises(SchemaMismatch, match="different numbers of rows"):
        input_matrix(uneven, [], {"hourly__x": np.zeros(3)}, request)


def test_numbers_beyond_float32_become_infinite_without_a_warning(plan, rows):
    plain = plan.model_copy(update={"transforms": ()})
    matrix = input_matrix(
        plain, [], {"hourly__x": np.array([1e300, 1])}, request_columns(plan, rows)
    )
    assert np.isinf(matrix[0, 0])
