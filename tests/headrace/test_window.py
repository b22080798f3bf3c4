from datetime import UTC, datetime

import pytest

from headrace.window import Window, WindowRefused


def test_a_month_begins_and_ends_at_midnight_utc():
    december = Window.of_month("2013-12")
    assert december.since == datetime(2013, 12, 1, tzinfo=UTC)
    assert december.until == datetime(2014, 1, 1, tzinfo=UTC)


def test_a_window_that_ends_before_it_begins_is_refused():
    moment = datetime(2013, 1, 1, tzinfo=UTC)
    with pytest.raises(WindowRefused, match="is empty"):
        Window(since=moment, until=moment)


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="timezone"):
        Window(since=datetime(2013, 1, 1), until=datetime(2014, 1, 1))  # noqa: DTZ001
