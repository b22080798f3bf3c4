from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from featurestore.offline.parts import add_part, not_yet_there
from featurestore.offline.tables import (
    count_rows,
    read_table,
    scan_table,
    table_names,
    table_span,
    table_uris,
)
from headrace import storage
from headrace.errors import SchemaMismatch, StorageFailed

START = datetime(2013, 1, 1, tzinfo=UTC)
EVENT = "event_timestamp"


@pytest.fixture
def hourly(root, values, put_table):
    put_table(root, "hourly", values(*[("JFK", 60 * h, 60 * h, float(h)) for h in range(8)]))


@pytest.fixture
def push(root, values):
    def go(*rows):
        return add_part(root, "hourly", values(*rows), timestamp=EVENT)

    return go


def xs(table):
    return table["x"].to_pylist()


@pytest.mark.usefixtures("hourly")
def test_pushed_rows_are_read_after_the_tables_own_in_the_order_of_the_parts(root, push):
    parts = [push(("JFK", 700, 700, 70.0)), push(("LGA", 65, 65, 65.0), ("LGA", 62, 62, 62.0))]
    first, second = sorted(parts, key=lambda part: part.uri)
    of = {parts[0].uri: [70], parts[1].uri: [62, 65]}
    assert xs(read_table(root, "hourly")) == [*range(8), *of[first.uri], *of[second.uri]]
    scanned = scan_table(root, "hourly", columns=["x"], where=pc.field("x") > 5)
    assert xs(pa.concat_tables(scanned)) == [6, 7, *of[first.uri], *of[second.uri]]
    assert table_uris(root, "hourly") == [f"{root}/hourly.parquet", first.uri, second.uri]


@pytest.mark.usefixtures("hourly")
def test_a_window_and_the_span_and_the_count_see_the_parts(root, push):
    push(("LGA", 65, 65, 65.0), ("LGA", 900, 900, 90.0))
    until = START.replace(hour=2)
    assert xs(read_table(root, "hourly", timestamp=EVENT, until=until)) == [0, 1, 65]
    assert table_span(root, "hourly", EVENT) == (START, START.replace(hour=15))
    assert count_rows(root) == 10


@pytest.mark.usefixtures("hourly")
def test_the_same_rows_pushed_twice_add_nothing(root, push):
    first = push(("LGA", 65, 65, 65.0), ("JFK", 66, 66, 66.0))
    again = push(("JFK", 66, 66, 66.0), ("LGA", 65, 65, 65.0))
    assert (first.was_there, again.was_there) == (False, True)
    assert again.uri == first.uri
    assert count_rows(root) == 10


@pytest.mark.usefixtures("hourly")
def test_rows_pushed_before_in_other_company_are_told_from_new_ones(root, push, values):
    push(("LGA", 65, 65, 65.0), ("JFK", 66, 66, None))
    push(("LGA", 300, 300, 1.0))
    rows = values(("JFK", 66, 66, None), ("JFK", 67, 67, 67.0), ("LGA", 65, 66, 65.0))
    assert xs(not_yet_there(root, "hourly", rows, timestamp=EVENT)) == [65, 67]


def test_a_table_may_have_been_pushed_only(root, push):
    part = push(("JFK", 0, 0, 1.0))
    assert table_names(root) == ["hourly"]
    assert table_uris(root, "hourly") == [part.uri]
    assert xs(read_table(root, "hourly")) == [1]


@pytest.mark.usefixtures("hourly")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop_columns(["x"]), r"columns \['x'\] are missing"),
        (lambda t: t.append_column("y", t["x"]), "column y is not in the table"),
        (
            lambda t: t.set_column(3, "x", t["x"].cast(pa.int64())),
            "column x is int64, but must be double",
        ),
        (lambda t: t.drop_columns([EVENT]), r"columns \['event_timestamp'\] are missing"),
    ],
)
def test_a_part_has_the_tables_columns(root, values, change, sentence):
    rows = change(values(("JFK", 0, 0, 1.0)))
    with pytest.raises(SchemaMismatch, match=sentence):
        add_part(root, "hourly", rows, timestamp=EVENT)
    assert count_rows(root) == 8


@pytest.mark.usefixtures("hourly")
def test_a_part_that_does_not_fit_the_table_any_more_is_refused_by_name(
    root, push, put_table, values
):
    part = push(("JFK", 0, 0, 1.0))
    changed = values(("JFK", 0, 0, 1.0)).rename_columns(["origin", EVENT, "known", "x"])
    put_table(root, "hourly", changed)
    with pytest.raises(SchemaMismatch, match=r"\['known'\] are missing") as refused:
        read_table(root, "hourly")
    assert part.uri in str(refused.value)


@pytest.mark.usefixtures("hourly")
def test_a_damaged_part_is_refused_by_name(root, push, values):
    part = push(("JFK", 0, 0, 1.0))
    storage.write_atomic(part.uri, b"PAR1")
    with pytest.raises(StorageFailed, match=part.uri.rsplit("/", 1)[-1]):
        read_table(root, "hourly")
    with pytest.raises(StorageFailed, match=part.uri.rsplit("/", 1)[-1]):
        not_yet_there(root, "hourly", values(("JFK", 0, 0, 1.0)), timestamp=EVENT)


def test_what_a_killed_writer_leaves_is_no_part(tmp_path, values):
    root = str(tmp_path)
    part = add_part(root, "hourly", values(("JFK", 0, 0, 1.0)), timestamp=EVENT)
    folder = tmp_path / "hourly.pushed"
    (folder / ".writing-x1.parquet").write_bytes(b"half")
    assert table_uris(root, "hourly") == [part.uri]
    assert pq.read_metadata(part.uri).num_rows == 1
