# ruff: noqa: DTZ001 - Hypothesis takes its bounds without a zone
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.flights.clock import local_time

ZONES = ["America/New_York", "America/Phoenix", "America/Puerto_Rico", "Pacific/Honolulu"]
known = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31, 23, 59, 59))


def by_zoneinfo(moment: datetime, zone: str) -> datetime:
    return moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@given(moments=st.lists(known, max_size=20), zone=st.sampled_from(ZONES))
def test_every_moment_has_zoneinfos_local_time(moments, zone):
    local = local_time(np.array(moments, "datetime64[us]"), zone)
    assert local.tolist() == [by_zoneinfo(moment, zone) for moment in moments]


@pytest.mark.parametrize("change", [datetime(2013, 3, 10, 7), datetime(2013, 11, 3, 6)])
def test_the_clock_is_changed_at_the_very_microsecond(change):
    around = [change + timedelta(microseconds=step) for step in (-1, 0, 1)]
    local = local_time(np.array(around, "datetime64[us]"), "America/New_York")
    assert local.tolist() == [by_zoneinfo(moment, "America/New_York") for moment in around]


@pytest.mark.parametrize("unknown", ["NaT", "1969-12-31T23:59:59.999999", "2100-01-01"])
def test_a_moment_whose_rules_are_not_known_has_no_local_time(unknown):
    assert np.isnat(local_time(np.array([unknown], "datetime64[us]"), "America/New_York"))[0]
