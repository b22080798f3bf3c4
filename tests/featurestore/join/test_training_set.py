import numpy as np
import pytest

from featurestore.join.training_set import join_features
from headrace.errors import BundleRefused, SchemaMismatch, UnknownName
from headrace.plan import FeaturePlan, TransformPin


@pytest.fixture
def plan(read):
    views = (read(), read(view="ever", table="ever", ttl_minutes=None))
    return FeaturePlan(
        project="tiny",
        feature_service="both",
        definitions_sha256="",
        event_timestamp="at",
        views=views,
        request=(),
        inputs_from_request=(),
        transforms=(),
    )


@pytest.fixture
def offline(tmp_path, values, put_table):
    rows = [("JFK", 30 * n, 30 * n, float(n)) for n in range(20)]
    put_table(str(tmp_path), "hourly", values(*rows))
    put_table(str(tmp_path), "ever", values(("JFK", 0, 0, -1.0), ("LGA", 900, 900, -2.0)))
    return str(tmp_path)


def test_rows_get_the_features_of_all_views_in_their_order(plan, offline, asked):
    joined = join_features(asked(("JFK", 65), ("LGA", 65), ("JFK", 0)), plan, offline)
    expected = np.array([[2, -1], [np.nan, np.nan], [0, -1]], dtype=np.float32)
    np.testing.assert_array_equal(joined.matrix, expected)
    assert joined.reasons["hourly"]["PRESENT"] == 2
    assert joined.reasons["hourly"]["NEVER_SEEN"] == 1
    assert sum(joined.reasons["ever"].values()) == 3


def test_a_shard_joins_to_the_same_values_as_the_whole(plan, offline, asked):
    rows = asked(*[("JFK", 13 * n) for n in range(60)])
    whole = join_features(rows, plan, offline).matrix
    parts = [join_features(rows.slice(n, 7), plan, offline).matrix for n in range(0, 60, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_value_of_exactly_the_ttl_before_the_first_row_is_read(plan, offline, asked):
    late = asked(("JFK", 19 * 30 + 60))
    assert join_features(late, plan, offline).matrix[0, 0] == 19


def test_no_rows_join_to_no_rows(plan, offline, asked):
    assert join_features(asked(), plan, offline).matrix.shape == (0, 2)


def test_a_missing_table_or_column_is_named(plan, offline, asked, read):
    missing = plan.model_copy(update={"views": (read(table="nowhere"),)})
    with pytest.raises(UnknownName, match="no table is named 'nowhere'"):
        join_features(asked(("JFK", 0)), missing, offline)
    with pytest.raises(SchemaMismatch, match=r"columns \['origin'\] are missing"):
        join_features(asked(("JFK", 0)).drop_columns(["origin"]), plan, offline)


def test_a_transform_that_has_changed_since_is_refused(plan, offline, asked):
    other = TransformPin(
        name="flights.scheduled_hour",
        inputs=("scheduled_departure",),
        output="scheduled_hour",
        source_sha256="0" * 64,
    )
    changed = plan.model_copy(update={"transforms": (other,)})
    with pytest.raises(BundleRefused, match="not the one it was trained with"):
        join_features(asked(("JFK", 0)), changed, offline)
