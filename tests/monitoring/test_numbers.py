import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitoring.numbers import add_numbers, count_numbers, learn_edges

values = hnp.arrays(
    np.float64,
    st.integers(0, 60),
    elements=st.one_of(
        st.floats(-1e100, 1e100, allow_subnormal=False),
        st.integers(-3, 3).map(float),
        st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0]),
    ),
)


@given(values, values)
def test_each_row_is_in_the_bin_whose_edges_hold_it(reference, current):
    edges = learn_edges(reference, bins=5)
    column = count_numbers(current, edges)
    held = [[low <= v < high for low, high in itertools.pairwise(edges)] for v in current]
    plain = np.array(held).reshape(-1, edges.size - 1).sum(axis=0)
    plain[-1] += np.isposinf(current).sum()
    np.testing.assert_array_equal(column.counts, plain)


@given(values, values)
def test_bins_and_missing_make_up_the_rows(reference, current):
    column = count_numbers(current, learn_edges(reference))
    assert column.missing == np.isnan(current).sum()
    assert column.counts.sum() + column.missing == current.size == column.rows


@given(values)
def test_moments_and_range_are_those_of_the_finite_values(current):
    column = count_numbers(current, learn_edges(current))
    finite = current[np.isfinite(current)]
    assert column.finite == finite.size
    if finite.size:
        assert (column.minimum, column.maximum) == (finite.min(), finite.max())
        scale = np.abs(finite).max()
        assert column.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-12 * scale)
        assert column.m2 == pytest.approx(finite.var() * finite.size, rel=1e-9, abs=1e-9 * scale**2)


@given(st.lists(values, min_size=1, max_size=5))
def test_the_sum_of_the_parts_is_the_whole(parts):
    whole = np.concatenate(parts)
    edges = learn_edges(whole, bins=5)
    added = count_numbers(parts[0], edges)
    for part in parts[1:]:
        added = add_numbers(added, count_numbers(part, edges))
    once = count_numbers(whole, edges)
    np.testing.assert_array_equal(added.counts, once.counts)
    assert (added.missing, added.finite) == (once.missing, once.finite)
    assert (added.minimum, added.maximum) == (once.minimum, once.maximum)
    scale = max(abs(once.minimum), abs(once.maximum)) if once.finite else 0.0
    assert added.mean == pytest.approx(once.mean, rel=1e-9, abs=1e-12 * scale)
    assert added.m2 == pytest.approx(once.m2, rel=1e-9, abs=1e-9 * scale**2)


def test_many_rows_are_counted_as_numpy_counts_them():
    random = np.random.default_rng(0)
    reference, current = random.normal(size=10_000), random.normal(0.3, 2.0, size=50_001)
    edges = learn_edges(reference)
    counts = count_numbers(current, edges).counts
    np.testing.assert_array_equal(counts, np.histogram(current, edges)[0])


def test_quantile_edges_cut_the_reference_into_equally_full_bins():
    reference = np.random.default_rng(1).normal(size=10_000)
    assert set(count_numbers(reference, learn_edges(reference, bins=20)).counts) == {500}


def test_few_distinct_values_get_a_bin_each_and_one_on_either_side():
    edges = learn_edges(np.array([0.0, 1.0, 1.0, np.nan]))
    column = count_numbers(np.array([-1.0, 0.0, 1.0, 1.0, 2.0]), edges)
    assert column.counts.tolist() == [1, 1, 2, 1]


def test_a_constant_that_becomes_another_constant_changes_its_bin():
    edges = learn_edges(np.full(10, 7.0))
    assert count_numbers(np.full(10, 7.0), edges).counts.tolist() == [0, 10, 0]
    assert count_numbers(np.full(10, 7.1), edges).counts.tolist() == [0, 0, 10]


def test_neighbouring_floats_stay_in_bins_of_their_own():
    twins = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert count_numbers(twins, learn_edges(twins)).counts.tolist() == [0, 1, 1, 0]


def test_a_column_without_any_value_has_one_bin():
    empty = np.full(3, np.nan)
    column = count_numbers(empty, learn_edges(empty))
    assert (column.counts.tolist(), column.missing, column.mean) == ([0], 3, 0.0)
