from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from monitoring.feature_health import judge_features, judge_freshness
from monitoring.feature_report import Freshness
from monitoring.limits import Limits
from monitoring.profile import profile_like, reference_profile

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = Limits(max_age_seconds=6 * 3600.0)


def kinds(freshness, limits=LIMITS):
    return [finding.kind for finding in judge_freshness("weather", freshness, limits, at=NOON)]


def reaching(hours, **online):
    moment = NOON - hours * HOUR
    return Freshness(newest_event=moment, newest_known=moment, **online)


@pytest.mark.parametrize(
    ("freshness", "expected"),
    [
        (reaching(6), []),
        (reaching(6.001), ["stale"]),
        (Freshness(), ["stale"]),
        (reaching(1, online="there", online_until=NOON - 6 * HOUR), []),
        (reaching(1, online="there", online_until=NOON - 7 * HOUR), ["behind"]),
        (reaching(7, online="there", online_until=NOON - 7 * HOUR), ["stale"]),
        (reaching(1, online="there", online_until=None), []),
        (reaching(1, online="missing"), ["not materialized"]),
        (reaching(1, online="loading"), ["not materialized"]),
    ],
)
def test_a_view_is_as_old_as_its_newest_value_in_each_store(freshness, expected):
    assert kinds(freshness) == expected


def test_a_view_of_any_age_is_never_too_old():
    anything = Limits(max_age_seconds=None)
    assert kinds(reaching(9e4, online="there", online_until=NOON - 9e5 * HOUR), anything) == []


def test_a_sentence_names_the_age_the_moment_and_the_limit():
    (finding,) = judge_freshness("weather", reaching(8), LIMITS, at=NOON)
    assert (
        "the newest value is 8 h old (2013-04-01 04:00 UTC), the limit is 6 h" in finding.sentence
    )


def judged(*windows, dtype="DOUBLE", limits=LIMITS):
    """The last window judged by those before it."""
    bins = reference_profile({"wind": np.concatenate(windows[:-1])})
    *past, current = [profile_like(bins, {"wind": values}) for values in windows]
    return judge_features("weather", {"wind": dtype}, past=past, current=current, limits=limits)


def missing(share, rows=2000):
    values = np.random.default_rng(7).normal(10.0, 3.0, rows)
    values[: int(share * rows)] = np.nan
    return values


def test_a_feature_that_goes_missing_is_found_with_both_shares():
    (feature,), (finding, *_) = judged(missing(0.02), missing(0.10))
    assert (feature.null_rate, feature.reference_null_rate) == (0.10, 0.02)
    assert finding.kind == "nulls"
    assert "10.0% of wind are missing, at most 2.0% in the windows before" in finding.sentence


def test_a_feature_that_moves_is_found_unless_it_may():
    (feature,), (finding,) = judged(missing(0.0), missing(0.0) + 5.0)
    assert finding.kind == "drift"
    assert feature.psi > 0.25
    assert (
        judged(missing(0.0), missing(0.0) + 5.0, limits=Limits(max_age_seconds=None, max_psi=None))[
            1
        ]
        == ()
    )


def test_what_moves_all_the_time_is_found_only_when_it_moves_further_than_ever():
    weeks = [missing(0.0) + shift for shift in (0.0, 4.0, -4.0, 0.0)]
    assert judged(*weeks, missing(0.0) + 4.0)[1] == ()
    (feature,), (finding,) = judged(*weeks, missing(0.0) + 40.0)
    assert finding.kind == "drift"
    assert feature.psi > 2 * feature.usual_psi > 0.5
    assert f"no window before lay further out than {feature.usual_psi:.3f}" in finding.sentence


def test_what_is_missing_now_and_then_is_found_only_when_more_is_missing_than_ever():
    assert judged(missing(0.0), missing(0.2), missing(0.22))[1] == ()
    assert judged(missing(0.0), missing(0.2), missing(0.3))[1][0].kind == "nulls"


def test_quiet_windows_and_small_ones_find_nothing():
    assert judged(missing(0.02), missing(0.04))[1] == ()
    assert judged(missing(0.0, rows=12), missing(0.25, rows=8))[1] == ()


def test_of_other_types_only_missing_values_are_compared():
    (feature,), findings = judged(missing(0.0) * 0, missing(0.5) * 0, dtype="INT64_LIST")
    assert [finding.kind for finding in findings] == ["nulls"]
    assert feature.psi is None


def test_a_view_without_rows_has_no_shares():
    (feature,), findings = judge_features(
        "weather", {"wind": "DOUBLE"}, past=[], current=None, limits=LIMITS
    )
    assert (feature.rows, feature.null_rate, findings) == (0, None, ())
