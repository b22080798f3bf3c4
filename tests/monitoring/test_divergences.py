import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.divergences import js_distance, psi, psi_noise

counts = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=30
).filter(lambda pairs: all(sum(side) for side in zip(*pairs, strict=True)))


def sides(pairs):
    return (np.array(side) for side in zip(*pairs, strict=True))


@settings(deadline=None)  # the first example imports scipy
@given(counts)
def test_js_distance_is_scipys(pairs):
    from scipy.spatial.distance import jensenshannon

    reference, current = sides(pairs)
    # scipy leaves rounding noise of 1e-16 under its root, so equal shares may give 1e-8
    expected = jensenshannon(reference, current, base=2)
    assert js_distance(reference, current) == pytest.approx(expected, abs=3e-8)


@given(counts)
def test_psi_is_its_formula_written_out(pairs):
    used = [(a + 0.5, b + 0.5) for a, b in pairs if a or b]
    n, m = (sum(side) for side in zip(*used, strict=True))
    expected = sum((b / m - a / n) * math.log((b / m) / (a / n)) for a, b in used)
    assert psi(*sides(pairs)) == pytest.approx(expected, abs=1e-12)


@given(counts)
def test_both_measures_are_symmetric_and_never_negative(pairs):
    reference, current = sides(pairs)
    for measure in (psi, js_distance):
        assert measure(reference, current) == pytest.approx(measure(current, reference))
        assert measure(reference, current) >= 0
        assert measure(reference, reference) == 0


def test_psi_of_two_shifted_halves_has_a_closed_form():
    reference, current = np.array([500_000, 500_000]), np.array([250_000, 750_000])
    assert psi(reference, current) == pytest.approx(0.25 * math.log(3), rel=1e-5)


def test_bins_that_both_sides_leave_empty_change_nothing():
    one, other = np.array([10, 20]), np.array([20, 10])
    assert psi(np.append(one, 0), np.append(other, 0)) == psi(one, other)


def test_noise_is_the_scaled_chi_squared_quantile():
    from scipy.stats import chi2

    noise = psi_noise(np.full(20, 50), np.full(20, 10), false_alarm_rate=0.01)
    assert noise == pytest.approx((1 / 1000 + 1 / 200) * chi2.ppf(0.99, 19))


def test_a_single_bin_has_no_noise():
    assert psi_noise(np.array([5, 0]), np.array([9, 0]), false_alarm_rate=0.01) == 0.0


@pytest.mark.parametrize("rows", [100, 200, 1_000, 20_000])
@pytest.mark.parametrize("bins", [4, 21])
def test_noise_is_exceeded_about_as_often_as_stated(rows, bins):
    random = np.random.default_rng(rows + bins)
    shares = np.full(bins, 1 / bins)
    pairs = zip(
        random.multinomial(50_000, shares, 4000),
        random.multinomial(rows, shares, 4000),
        strict=True,
    )
    exceeded = [psi(a, b) > psi_noise(a, b, false_alarm_rate=0.05) for a, b in pairs]
    # 4000 draws at 5 % have a standard error of 0.34 %; asymptotics may cost a fifth more.
    assert np.mean(exceeded) < 0.06 + 3 * 0.0034
    if rows >= 1_000:
        assert np.mean(exceeded) > 0.04 - 3 * 0.0034
