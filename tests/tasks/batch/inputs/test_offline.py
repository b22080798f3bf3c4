"""A window of a table of the offline store: the rows that read_table gives, and no others."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.columns import TIMESTAMP
from featurestore.offline.parts import add_part
from featurestore.offline.tables import read_table
from headrace.errors import DatesOutsideData, SchemaMismatch, UnknownName
from headrace.settings import Settings
from headrace.window import Window
from tasks.batch.inputs import cut, offline_table, read_batches

START = datetime(2013, 1, 1, tzinfo=UTC)


def rows(first, count, *, order=None):
    hours = np.arange(first, first + count) if order is None else np.asarray(order)
    moments = [START + timedelta(hours=int(hour)) for hour in hours]
    return pa.table({"at": pa.array(moments, TIMESTAMP), "id": hours})


@pytest.fixture
def settings(tmp_path):
    settings = Settings(home=tmp_path)
    root = tmp_path / "storage" / "offline"
    root.mkdir(parents=True)
    pq.write_table(rows(0, 1000), root / "flights.parquet", row_group_size=100)
    add_part(str(root), "flights", rows(500, 50), timestamp="at")
    return settings


def window(since, until):
    return Window(since=START + timedelta(hours=since), until=START + timedelta(hours=until))


def ids(settings, asked, table="flights"):
    dataset = offline_table(settings, table, asked, "at")
    found = []
    for piece in cut(dataset, 200):
        for position, batch in read_batches(piece, ["id"], batch_rows=64):
            found += batch["id"].to_pylist()
            if table == "flights" and piece.uri.endswith("/flights.parquet"):
                assert batch["id"][0].as_py() == position
    assert dataset.rows == len(found)
    return found


@pytest.mark.parametrize("span", [(0, 1000), (150, 420), (500, 600), (510, 511), (990, 2000)])
def test_a_window_has_the_rows_that_the_table_has(settings, span):
    asked = window(*span)
    wanted = read_table(
        settings.uri("offline"),
        "flights",
        columns=["id"],
        timestamp="at",
        since=asked.since,
        until=asked.until,
    )
    assert ids(settings, asked) == wanted["id"].to_pylist()


def test_row_groups_outside_the_window_are_not_read(settings):
    dataset = offline_table(settings, "flights", window(150, 420), "at")
    pieces = cut(dataset, 1000)
    assert [piece.row_groups for piece in pieces] == [(1, 2, 3, 4)]
    assert (pieces[0].first_row, pieces[0].rows) == (100, 270)


def test_a_window_of_whole_row_groups_filters_nothing(settings):
    dataset = offline_table(settings, "flights", window(0, 500), "at")
    assert dataset.files[0].reading.bounds is None


def test_rows_that_are_not_sorted_are_found_all_the_same(settings, tmp_path):
    order = np.random.default_rng(7).permutation(300)
    path = tmp_path / "storage" / "offline" / "mixed.parquet"
    pq.write_table(rows(0, 0, order=order), path, row_group_size=100)
    found = ids(settings, window(100, 200), table="mixed")
    assert found == [hour for hour in order.tolist() if 100 <= hour < 200]


def test_a_row_without_a_moment_is_in_no_window(settings, tmp_path):
    table = pa.concat_tables([rows(0, 50), pa.table({"at": pa.nulls(3, TIMESTAMP), "id": [7] * 3})])
    pq.write_table(table, tmp_path / "storage" / "offline" / "holes.parquet")
    assert ids(settings, window(0, 100), table="holes") == list(range(50))


def test_a_window_without_rows_says_where_the_rows_are(settings):
    with pytest.raises(DatesOutsideData, match="2013-02-11"):
        offline_table(settings, "flights", window(5000, 6000), "at")
    empty = offline_table(settings, "flights", window(5000, 6000), "at", empty_ok=True)
    assert (empty.rows, cut(empty, 10)) == (0, ())


def test_a_table_or_column_that_is_not_there_is_named(settings):
    with pytest.raises(UnknownName, match="flight"):
        offline_table(settings, "flihgts", window(0, 1), "at")
    with pytest.raises(SchemaMismatch, match="when"):
        offline_table(settings, "flights", window(0, 1), "when")
