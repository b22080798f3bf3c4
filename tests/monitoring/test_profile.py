import functools

import numpy as np
import pyarrow as pa
import pytest

from headrace.bundle import arrow_bytes
from monitoring.errors import ColumnRefused, ColumnsMissing, EdgesDiffer, ProfileRefused
from monitoring.profile import Profile, merge, profile_like, reference_profile


def test_profiles_of_shards_add_up_to_the_profile_of_the_table(window):
    columns = window(1000)
    reference = reference_profile(columns)
    shards = [{k: v[i : i + 170] for k, v in columns.items()} for i in range(0, 1000, 170)]
    added = functools.reduce(merge, (profile_like(reference, shard) for shard in shards))
    assert added.rows == 1000
    for name, column in added.columns.items():
        np.testing.assert_array_equal(column.counts, reference.columns[name].counts)
        assert column.missing == reference.columns[name].missing


def test_the_order_of_rows_does_not_matter_for_counts_and_edges(window):
    columns = window(1000)
    order = np.random.default_rng(5).permutation(1000)
    one = reference_profile(columns)
    other = reference_profile({name: values[order] for name, values in columns.items()})
    for name, column in one.columns.items():
        assert column.fits(other.columns[name])
        np.testing.assert_array_equal(column.counts, other.columns[name].counts)


def test_a_profile_survives_the_way_through_bytes(window):
    profile = reference_profile(window(500))
    again = Profile.from_bytes(profile.to_bytes())
    assert again == profile
    assert merge(again, profile).rows == 1000


def test_equal_profiles_give_equal_bytes_whatever_the_order_of_columns(window):
    columns = window(500)
    backwards = dict(reversed(columns.items()))
    assert reference_profile(columns).to_bytes() == reference_profile(backwards).to_bytes()
    assert reference_profile(columns) != reference_profile(window(500, seed=1))


def test_a_profile_has_the_same_size_for_any_number_of_rows(window):
    small, large = (reference_profile(window(rows)).to_bytes() for rows in (1_000, 20_000))
    assert abs(len(small) - len(large)) < 100


def test_whole_numbers_and_flags_are_numbers():
    profile = reference_profile({"hour": np.arange(24), "is_late": np.array([True, False] * 12)})
    assert profile.columns["is_late"].counts.tolist() == [0, 12, 12, 0]
    assert profile.columns["hour"].mean == 11.5


def test_a_missing_column_is_named(window):
    reference = reference_profile(window(50))
    current = window(50)
    del current["delay"]
    with pytest.raises(ColumnsMissing, match="columns delay of the reference are missing"):
        profile_like(reference, current)


def test_columns_the_reference_does_not_have_are_passed_over(window):
    reference = reference_profile(window(50))
    current = profile_like(reference, window(50) | {"new": np.zeros(3)})
    assert current.columns.keys() == reference.columns.keys()


def test_profiles_on_other_edges_are_not_merged(window):
    with pytest.raises(EdgesDiffer, match=r"bins of .*delay, prediction"):
        merge(reference_profile(window(50)), reference_profile(window(50, seed=1)))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array(["2013-01-01"], "datetime64[us]"), "neither numbers nor text"),
        (np.zeros((1, 2)), "its shape is"),
        (np.zeros(2), "it has 2 rows|it has 1 rows"),
        (np.array([{"a": 1}], object), "it is not all text"),
    ],
)
def test_a_column_that_cannot_be_profiled_is_refused(values, reason):
    with pytest.raises(ColumnRefused, match=reason):
        reference_profile({"good": np.zeros(1), "bad": values})


def test_text_where_the_reference_has_numbers_is_refused():
    reference = reference_profile({"delay": np.zeros(1)})
    with pytest.raises(ColumnRefused, match="the reference holds numbers"):
        profile_like(reference, {"delay": np.array(["late"])})


@pytest.mark.parametrize("data", [b"", b"not arrow", arrow_bytes(pa.table({"a": [1]}))])
def test_bytes_of_something_else_are_refused(data):
    with pytest.raises(ProfileRefused):
        Profile.from_bytes(data)
