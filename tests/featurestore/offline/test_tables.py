from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featurestore.errors import TimeWithoutZone
from featurestore.offline.tables import count_rows, read_table, scan_table, table_names, table_span
from headrace.errors import DatesOutsideData, SchemaMismatch, StorageFailed, UnknownName

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def hourly(root, values, put_table):
    rows = [("JFK", 60 * h, 60 * h, float(h)) for h in range(24)]
    put_table(root, "hourly", values(*rows))


def window(root, since, until, **options):
    bounds = {"timestamp": "event_timestamp", "since": since, "until": until}
    return read_table(root, "hourly", **bounds, **options)


@pytest.mark.usefixtures("hourly")
def test_a_window_holds_its_start_and_not_its_end(root):
    found = window(root, NOON, NOON.replace(hour=15), columns=["x", "origin"])
    assert found.column_names == ["x", "origin"]
    assert found["x"].to_pylist() == [12, 13, 14]


@pytest.mark.usefixtures("hourly")
def test_an_open_window_reaches_to_the_end_of_the_table(root):
    assert window(root, NOON.replace(hour=22), None)["x"].to_pylist() == [22, 23]
    assert window(root, None, NOON.replace(hour=2))["x"].to_pylist() == [0, 1]
    assert read_table(root, "hourly").num_rows == 24


@pytest.mark.usefixtures("hourly")
def test_the_span_is_the_first_and_last_timestamp(root):
    first, last = table_span(root, "hourly", "event_timestamp")
    assert (first, last) == (NOON.replace(hour=0), NOON.replace(hour=23))


@pytest.mark.usefixtures("hourly")
def test_a_missing_table_is_refused_with_the_known_ones(root):
    with pytest.raises(UnknownName, match="did you mean 'hourly'"):
        read_table(root, "hourli")
    assert table_names(root) == ["hourly"]


@pytest.mark.usefixtures("hourly")
def test_a_window_without_rows_tells_what_the_table_reaches(root):
    year = NOON.replace(year=2015)
    with pytest.raises(DatesOutsideData, match="2013-01-01 00:00 to 2013-01-01 23:00"):
        window(root, year, None)
    assert window(root, year, None, empty_ok=True).num_rows == 0


@pytest.mark.usefixtures("hourly")
def test_a_bound_without_a_time_zone_is_refused(root):
    with pytest.raises(TimeWithoutZone, match=r"write 2013-01-01T12:00:00\+00:00"):
        window(root, NOON.replace(tzinfo=None), None)


@pytest.mark.usefixtures("hourly")
@pytest.mark.parametrize(
    ("timestamp", "sentence"),
    [
        ("time", r"columns \['time'\] are missing"),
        ("x", r"x is double, but must be timestamp\[us, tz=UTC\]"),
        (None, "needs the name of the timestamp column"),
    ],
)
def test_a_window_needs_a_utc_timestamp(root, timestamp, sentence):
    with pytest.raises(SchemaMismatch, match=sentence):
        read_table(root, "hourly", timestamp=timestamp, since=NOON)


@pytest.mark.usefixtures("hourly")
def test_missing_columns_are_named_beside_those_there(root):
    with pytest.raises(SchemaMismatch, match=r"\['y'\] are missing; it has origin"):
        read_table(root, "hourly", columns=["x", "y"])


@pytest.mark.usefixtures("hourly")
def test_the_rows_of_all_tables_are_counted(root, values, put_table):
    put_table(root, "daily", values(("JFK", 0, 0, 1.0)))
    assert count_rows(root) == 25


def test_a_table_without_rows_has_no_span(root, values, put_table):
    put_table(root, "hourly", values())
    with pytest.raises(SchemaMismatch, match="it has no rows"):
        table_span(root, "hourly", "event_timestamp")


@pytest.mark.usefixtures("hourly")
def test_a_scan_gives_the_rows_that_fit_in_order(root):
    parts = scan_table(root, "hourly", columns=["x"], where=pc.field("x") >= 20)
    assert pa.concat_tables(parts)["x"].to_pylist() == [20, 21, 22, 23]


@pytest.mark.parametrize("part", ["footer", "page"])
def test_a_damaged_file_is_refused_by_name(tmp_path, values, put_table, part):
    rows = values(*[("JFK", h, h, h / 3) for h in range(24)])
    put_table(str(tmp_path), "hourly", rows, compression="none", use_dictionary=False)
    path = tmp_path / "hourly.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(3)
    last_value = column.data_page_offset + column.total_compressed_size - 1
    data[-6 if part == "footer" else last_value] ^= 0xFF  # no page can tell, but its checksum
    path.write_bytes(data)
    with pytest.raises(StorageFailed, match=r"hourly\.parquet"):
        read_table(str(tmp_path), "hourly")
