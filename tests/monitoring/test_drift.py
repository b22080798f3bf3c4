import numpy as np
import pytest

from headrace.spec import DriftPolicy
from monitoring.drift import compare_profiles
from monitoring.errors import EdgesDiffer, EmptyWindow
from monitoring.profile import profile_like, reference_profile


def compare(reference, current, **policy):
    learned = reference_profile(reference)
    return compare_profiles(learned, profile_like(learned, current), DriftPolicy(**policy))


def test_a_window_like_the_reference_has_not_drifted(window):
    report = compare(window(5000), window(2000, seed=1))
    assert not report.drifted
    assert report.drifted_share == 0
    assert report.sentence.startswith("The window has not drifted: 0 of 4 columns moved;")


def test_a_shifted_column_is_found_and_named_first(window):
    report = compare(window(5000), window(2000, seed=1, shift=20.0), drifted_share=0.25)
    assert report.drifted
    assert [column.name for column in report.columns if column.drifted] == ["delay"]
    assert report.columns[0].name == "delay"
    assert "1 of 4 columns moved: delay (PSI" in report.sentence


def test_one_column_of_four_is_below_the_share_that_alarms(window):
    report = compare(window(5000), window(2000, seed=1, shift=20.0), drifted_share=0.3)
    assert (report.drifted_share, report.drifted) == (0.25, False)


def test_a_moved_prediction_alarms_alone(window):
    current = window(2000, seed=1)
    current["prediction"] = current["prediction"] ** 2
    assert compare(window(5000), current, drifted_share=1.0).drifted


def test_a_feature_that_goes_missing_drifts(window):
    current = window(2000, seed=1)
    current["delay"][::2] = np.nan
    found = {column.name: column for column in compare(window(5000), current).columns}["delay"]
    assert found.drifted
    assert found.reference_missing == pytest.approx(0.05, abs=0.02)
    assert found.current_missing == pytest.approx(0.525, abs=0.02)


def test_a_tiny_window_needs_more_than_the_policys_psi(window):
    columns = compare(window(5000), window(30, seed=1)).columns
    noisy = [column for column in columns if column.psi > 0.2]
    assert noisy
    assert not any(column.drifted for column in noisy)


def test_a_huge_window_does_not_alarm_about_a_hairs_breadth():
    random = np.random.default_rng(0)
    report = compare(
        {"temp": random.normal(size=200_000)}, {"temp": random.normal(0.05, 1.0, size=200_000)}
    )
    assert report.columns[0].critical < report.columns[0].psi < 0.2
    assert not report.drifted


@pytest.mark.parametrize("rows", [200, 1_000, 5_000, 20_000])
def test_equal_populations_alarm_at_most_at_the_stated_rate(rows):
    random = np.random.default_rng(rows)

    def draw(size):
        return {f"c{i}": random.gamma(i + 1.0, size=size) for i in range(5)}

    reference = reference_profile(draw(20_000))
    # psi=1e-9: the noise mark alone must hold the rate.
    policy = DriftPolicy(psi=1e-9, drifted_share=0.2, false_alarm_rate=0.1)
    windows = (profile_like(reference, draw(rows)) for _ in range(200))
    alarms = sum(compare_profiles(reference, window, policy).drifted for window in windows)
    # 200 windows at 10 %: 20 expected, standard deviation 4.2; the bound is 3 of them above.
    assert alarms <= 20 + 3 * 4.2


def test_an_empty_window_is_an_error(window):
    with pytest.raises(EmptyWindow, match="reference 50, current 0"):
        compare(window(50), window(0))


def test_profiles_of_other_bins_are_not_compared(window):
    one, other = reference_profile(window(50)), reference_profile(window(60, seed=3))
    with pytest.raises(EdgesDiffer):
        compare_profiles(one, other, DriftPolicy())
