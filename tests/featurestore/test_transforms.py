# ruff: noqa: DTZ001 - Hypothesis takes its bounds without a zone
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.transforms import flights
from headrace.spec import load_spec
from headrace.transform import find_transform

NEW_YORK = ZoneInfo("America/New_York")
MOMENTS = st.lists(
    st.one_of(
        st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31)),
        st.datetimes(datetime(2013, 3, 10), datetime(2013, 3, 11)),  # the clocks go forward
        st.datetimes(datetime(2013, 11, 3), datetime(2013, 11, 4)),  # and back
    ),
    min_size=1,
    max_size=30,
)


def column(moments) -> np.ndarray:
    return np.array(moments, "datetime64[us]")


def local(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC).astimezone(NEW_YORK)


def hour(moment: datetime) -> float:
    clock = local(moment).time()
    seconds = clock.hour * 3600 + clock.minute * 60 + clock.second + clock.microsecond / 1e6
    return seconds / 3600


@given(MOMENTS)
def test_the_scheduled_hour_is_that_of_new_yorks_clocks(moments):
    expected = [hour(moment) for moment in moments]
    np.testing.assert_allclose(flights.scheduled_hour(column(moments)), expected, atol=1e-9)


@given(MOMENTS)
def test_the_scheduled_weekday_is_new_yorks_from_monday_0(moments):
    expected = [local(moment).weekday() for moment in moments]
    assert flights.scheduled_weekday(column(moments)).tolist() == expected


@given(MOMENTS, st.integers(1950, 2013))
def test_a_planes_age_is_counted_in_calendar_years(moments, built):
    ages = flights.plane_age_years(column(moments), np.full(len(moments), float(built)))
    assert ages.tolist() == [moment.year - built for moment in moments]


@given(MOMENTS, st.integers(0, 72 * 60))
def test_the_hours_since_the_previous_leg_are_told_from_its_hour_of_the_week(moments, minutes):
    a_monday = np.datetime64("2012-12-31", "us")
    arrived = column(moments) - np.timedelta64(minutes, "m")
    hour_of_week = (arrived - a_monday) / np.timedelta64(1, "h") % 168
    hours = flights.hours_since_previous_leg(column(moments), hour_of_week)
    apart = (hours - minutes / 60 + 84) % 168 - 84  # a leg that ends now is 0 or 168 hours ago
    np.testing.assert_allclose(apart, 0, atol=1e-6)


@pytest.mark.parametrize("name", load_spec("flight_delay").transforms)
def test_one_row_alone_has_the_very_bits_it_has_among_many(name):
    transform = find_transform(name)
    random = np.random.default_rng(1)
    moments = np.datetime64("2013-01-01", "us") + random.integers(0, 365 * 86_400, 500) * 1_000_000
    columns = [moments.astype("datetime64[us]"), random.uniform(0, 160, 500)][
        : len(transform.inputs)
    ]
    together = transform(*columns)
    alone = [transform(*(c[i : i + 1] for c in columns))[0] for i in range(500)]
    assert together.tobytes() == np.array(alone).tobytes()


@pytest.mark.parametrize("name", load_spec("flight_delay").transforms)
def test_a_missing_input_gives_a_missing_feature(name):
    transform = find_transform(name)
    known, missing = (
        [column(["2013-05-01T12:00"]), np.array([100.0])],
        [column(["NaT"]), np.array([np.nan])],
    )
    for position in range(len(transform.inputs)):
        inputs = known[: len(transform.inputs)]
        inputs[position] = missing[position]
        assert np.isnan(transform(*inputs)).tolist() == [True]
