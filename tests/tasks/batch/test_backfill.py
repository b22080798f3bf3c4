"""Which windows are filled in: those that are asked for, or those that were missed."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.window import Window
from tasks.batch.backfill import BackfillUnclear, asked_windows, missed_windows, windows_between
from tasks.batch.commit import commit
from tasks.batch.lease import held
from tasks.batch.plan import window_output

MODEL = "flight_delay"


def names(windows):
    return [str(window) for window in windows]


@pytest.fixture
def table(settings):
    """Flights from 10 to 15 January; nothing else matters here."""
    folder = Path(settings.uri("offline"))
    folder.mkdir(parents=True)
    moments = [datetime(2013, 1, day, 12, tzinfo=UTC) for day in range(10, 16)]
    column = pa.array(moments, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"scheduled_departure": column}), folder / "flight_schedule.parquet")


@pytest.fixture
def committed(settings):
    """Commit a window, without a row."""

    def write(since, until):
        window = Window(
            since=datetime(2013, 1, since, tzinfo=UTC), until=datetime(2013, 1, until, tzinfo=UTC)
        )
        output = window_output(settings, MODEL, window)
        with held(output, owner="a test") as lease:
            commit(
                output,
                lease=lease,
                run="r",
                model=MODEL,
                bundle="0" * 64,
                input="none",
                rows=0,
                shards=(),
            )

    return write


def test_months_and_days_are_cut_where_they_begin():
    assert names(windows_between(date(2012, 12, 1), date(2013, 2, 1), "month")) == [
        "2012-12-01..2013-01-01",
        "2013-01-01..2013-02-01",
    ]
    assert len(windows_between(date(2012, 2, 1), date(2012, 3, 1), "day")) == 29


@pytest.mark.parametrize(
    ("since", "until", "every", "says"),
    [
        (date(2013, 1, 2), date(2013, 1, 2), "day", "there is nothing from"),
        (date(2013, 1, 2), date(2013, 2, 1), "month", "is not the first day of a month"),
    ],
)
def test_days_that_make_no_windows_are_refused(since, until, every, says):
    with pytest.raises(BackfillUnclear, match=says):
        windows_between(since, until, every)


def test_missed_windows_are_all_since_the_first_committed_one_as_far_as_there_are_rows(
    settings, table, committed
):
    committed(10, 11)
    committed(12, 13)
    committed(10, 13)  # of another length: it says nothing of days
    assert names(missed_windows(settings, MODEL, "day")) == [
        "2013-01-11..2013-01-12",
        "2013-01-13..2013-01-14",
        "2013-01-14..2013-01-15",
        "2013-01-15..2013-01-16",
    ]


def test_a_day_that_is_not_over_is_not_missed(settings, table, committed):
    committed(12, 13)
    assert names(missed_windows(settings, MODEL, "day", today=date(2013, 1, 14))) == [
        "2013-01-13..2013-01-14"
    ]
    assert missed_windows(settings, MODEL, "day", today=date(2013, 1, 13)) == []


def test_where_nothing_is_committed_the_last_whole_window_is_missed(settings, table):
    assert names(missed_windows(settings, MODEL, "day")) == ["2013-01-15..2013-01-16"]
    assert names(missed_windows(settings, MODEL, "month")) == ["2013-01-01..2013-02-01"]


@pytest.mark.parametrize(
    ("since", "until", "missed"),
    [(None, None, False), (date(2013, 1, 1), None, False), (date(2013, 1, 1), None, True)],
)
def test_days_or_missed_ones_must_be_asked_for(settings, since, until, missed):
    with pytest.raises(BackfillUnclear, match="give --since and --until, or --missed"):
        asked_windows(settings, MODEL, "day", since, until, missed=missed)
