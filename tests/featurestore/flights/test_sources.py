from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import TimeWithoutZone
from featurestore.flights.sources import ROW_GROUP_ROWS, _parquet, write_tables

UNTIL = datetime(2013, 1, 6, tzinfo=UTC)
LAST = "flight_schedule"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("offline")
    return root, write_tables(str(root), until=UNTIL)


def moment(when: datetime) -> np.datetime64:
    return np.datetime64(when.replace(tzinfo=None), "us")


def features_known_by(tables: dict[str, pa.Table], when: datetime) -> dict[str, pa.Table]:
    return {
        name: table.filter(table["created_timestamp"].to_numpy() <= moment(when))
        for name, table in tables.items()
        if "event_timestamp" in table.column_names
    }


def with_other_outcomes(flights: pa.Table, *, since: datetime, minutes: int) -> pa.Table:
    """As if all flights due from ``since`` on had left and arrived earlier or later."""
    due_later = flights["scheduled_departure"].to_numpy() >= moment(since)
    for name in ("departure", "arrival", "departure_delay_minutes", "arrival_delay_minutes"):
        column = flights[name]
        unit = 60_000_000 if pa.types.is_timestamp(column.type) else 1
        values = column.cast(pa.int64()).fill_null(0).to_numpy() + due_later * minutes * unit
        other = pa.array(values, mask=column.is_null().to_numpy()).cast(column.type)
        flights = flights.set_column(flights.column_names.index(name), name, other)
    return flights


@pytest.mark.parametrize("minutes", [-10, 60])
@pytest.mark.parametrize("hour", [12, 19])
def test_outcomes_of_later_flights_change_nothing_that_was_known_before(
    build, flights, small, minutes, hour
):
    since = datetime(2013, 1, 9, hour, tzinfo=UTC)
    other = build(of=with_other_outcomes(flights, since=since, minutes=minutes))
    before, after = features_known_by(small, since), features_known_by(other, since)
    assert all(before[name].num_rows for name in before)
    assert before == after
    assert features_known_by(small, since + timedelta(days=1)) != features_known_by(
        other, since + timedelta(days=1)
    )


def test_the_tables_until_a_moment_are_what_the_years_tables_held_by_then(small, year):
    until = datetime(2013, 1, 12, tzinfo=UTC)
    assert features_known_by(small, until) == features_known_by(year, until)
    for name in ("flight_labels", LAST):
        due = year[name]["scheduled_departure"].to_numpy() < moment(until)
        assert small[name] == year[name].filter(due)


def test_feature_tables_until_a_moment_hold_nothing_known_later(small):
    held = {name: t for name, t in small.items() if "event_timestamp" in t.column_names}
    assert features_known_by(small, datetime(2013, 1, 12, tzinfo=UTC)) == held


def test_two_runs_write_equal_bytes(written, tmp_path):
    root, tables = written
    assert write_tables(str(tmp_path), until=UNTIL) == tables
    names = sorted(path.name for path in root.iterdir())
    assert names == sorted(f"{table.table}.parquet" for table in tables)
    for name in names:
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_report_is_what_the_files_hold_and_the_schedule_comes_last(written):
    root, tables = written
    assert tables[-1].table == LAST
    for table in tables:
        held = pq.read_table(root / f"{table.table}.parquet", page_checksum_verification=True)
        names = set(held.column_names)
        time = "event_timestamp" if "event_timestamp" in names else "scheduled_departure"
        assert (held.num_rows, held[time][0].as_py(), held[time][-1].as_py()) == (
            table.rows,
            table.first,
            table.last,
        )


def test_a_row_group_has_65536_rows_and_a_flipped_bit_is_refused(year, tmp_path):
    path = tmp_path / "table.parquet"
    data = bytearray(_parquet(year[LAST]))
    path.write_bytes(data)
    assert pq.ParquetFile(path).metadata.row_group(0).num_rows == ROW_GROUP_ROWS
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_moment_without_a_time_zone_is_refused(tmp_path):
    with pytest.raises(TimeWithoutZone):
        write_tables(str(tmp_path), until=datetime(2013, 1, 6))  # noqa: DTZ001
    assert not list(tmp_path.iterdir())
