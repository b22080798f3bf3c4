"""Parquet files, folders and globs: found, checked, cut and read."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import StorageFailed
from tasks.batch.inputs import (
    InputBroken,
    InputChanged,
    InputEmpty,
    InputNotFound,
    InputRefused,
    Piece,
    cut,
    open_dataset,
    read_batches,
)


def test_files_are_read_in_sorted_order_and_every_row_once(parquet, read, tmp_path):
    parquet("in/b.parquet", 1000, 330)
    parquet("in/a.parquet", 0, 1000, row_group_size=333)
    parquet("in/_hidden/x.parquet", 9000, 10)
    dataset = open_dataset(str(tmp_path / "in"))
    assert (dataset.rows, [file.row_groups for file in dataset.files]) == (
        1330,
        [(333, 333, 333, 1), (100, 100, 100, 30)],
    )
    assert read(dataset) == list(range(1330))


def test_positions_are_those_in_the_file(parquet):
    dataset = open_dataset(str(parquet("x.parquet", 0, 1000)))
    for piece in cut(dataset, 250):
        for position, batch in read_batches(piece, ["id"], batch_rows=30):
            assert batch["id"].to_pylist() == list(range(position, position + batch.num_rows))


def test_a_piece_has_whole_row_groups_and_at_least_one(parquet):
    dataset = open_dataset(str(parquet("x.parquet", 0, 950)))
    assert [piece.rows for piece in cut(dataset, 250)] == [200, 200, 200, 200, 150]
    assert [piece.rows for piece in cut(dataset, 10)] == [100] * 9 + [50]
    assert [piece.first_row for piece in cut(dataset, 250)] == [0, 200, 400, 600, 800]


def test_the_same_file_gives_the_same_pieces_whatever_lies_beside_it(parquet, tmp_path):
    parquet("in/b.parquet", 0, 500)
    alone = cut(open_dataset(str(tmp_path / "in")), 200)
    parquet("in/a.parquet", 500, 77)
    assert cut(open_dataset(str(tmp_path / "in")), 200)[1:] == alone


def test_a_piece_travels_as_pickle_and_as_json(parquet):
    from distributed.protocol.pickle import dumps, loads  # as Dask sends it

    (piece, *_) = cut(open_dataset(str(parquet("x.parquet", 0, 100))), 10)
    assert loads(dumps(piece)) == piece
    assert Piece.model_validate_json(piece.model_dump_json()) == piece
    assert hash(piece) == hash(piece.model_copy())


def test_columns_come_in_the_order_asked_for(parquet):
    (piece,) = cut(open_dataset(str(parquet("x.parquet", 0, 50))), 100)
    ((_, batch),) = read_batches(piece, ["name", "id"], batch_rows=100)
    assert batch.column_names == ["name", "id"]


def test_a_glob_takes_what_fits_it(parquet, read, tmp_path):
    parquet("in/2013-01.parquet", 0, 10)
    parquet("in/2013-02.parquet", 10, 10)
    parquet("in/2014-01.parquet", 20, 10)
    assert read(open_dataset(str(tmp_path / "in" / "2013-*.parquet"))) == list(range(20))


def test_names_of_folders_become_columns(parquet, read, tmp_path):
    parquet("in/month=1/origin=JFK/x.parquet", 0, 10)
    parquet("in/month=2/origin=__HIVE_DEFAULT_PARTITION__/x.parquet", 10, 5)
    for uri in (tmp_path / "in", tmp_path / "in" / "month=*" / "*" / "*.parquet"):
        dataset = open_dataset(str(uri))
        assert dataset.schema.field("month").type == pa.int64()
        assert read(dataset, "month") == [1] * 10 + [2] * 5
        assert read(dataset, "origin") == ["JFK"] * 10 + [None] * 5


def test_nothing_there_is_told(tmp_path, parquet):
    parquet("in/x.parquet", 0, 1)
    with pytest.raises(InputNotFound, match=r"no file matches this glob \(in a shell, put it in"):
        open_dataset(str(tmp_path / "in" / "*.csv"))
    with pytest.raises(InputNotFound, match="nothing is there"):
        open_dataset(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()
    with pytest.raises(InputNotFound, match="holds no data files"):
        open_dataset(str(tmp_path / "empty"))


def test_a_dataset_without_rows_is_an_error_unless_expected(parquet):
    path = str(parquet("x.parquet", 0, 0))
    with pytest.raises(InputEmpty, match=r"no rows in its 1 file.*--allow-empty"):
        open_dataset(path)
    assert cut(open_dataset(path, empty_ok=True), 10) == ()


def test_a_format_that_cannot_be_told_or_is_mixed_is_refused(parquet, read, tmp_path):
    path = parquet("x.data", 0, 10)
    with pytest.raises(InputRefused, match="Pass --format"):
        open_dataset(str(path))
    assert read(open_dataset(str(path), format="parquet")) == list(range(10))
    parquet("in/x.parquet", 0, 10)
    (tmp_path / "in" / "y.csv").write_text("id\n1\n")
    with pytest.raises(InputRefused, match="mixes formats"):
        open_dataset(str(tmp_path / "in"))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            pa.table({"id": [1], "val": [1.0], "name": ["a"]}),
            r"value is missing.*\['val'\] instead",
        ),
        (pa.table({"id": [1], "value": [1.0]}), "column name is missing"),
        (pa.table({"id": [1], "value": ["1"], "name": ["a"]}), "value is string, but double in"),
        (
            pa.table({"id": [1], "value": [1.0], "name": ["a"], "more": [1]}),
            "column more is in no other file",
        ),
        (pa.table({"id": [1.5], "value": [1.0], "name": ["a"]}), "id is double, but int64 in"),
    ],
)
def test_a_file_that_does_not_fit_the_others_is_named(parquet, read, tmp_path, table, told):
    parquet("in/a.parquet", 0, 0, table=table)
    parquet("in/b.parquet", 0, 10)
    parquet("in/c.parquet", 10, 10)
    with pytest.raises(InputBroken, match=told) as broken:
        open_dataset(str(tmp_path / "in"))
    assert broken.value.uri == str(tmp_path / "in" / "a.parquet")
    skipping = open_dataset(str(tmp_path / "in"), bad_files="skip")
    assert [bad.uri for bad in skipping.quarantined] == [str(tmp_path / "in" / "a.parquet")]
    assert read(skipping) == list(range(20))


def test_files_may_differ_in_columns_that_nobody_reads(parquet, read, tmp_path):
    parquet("in/a.parquet", 0, 10)
    parquet("in/b.parquet", 0, 0, table=pa.table({"id": [10], "value": ["text"]}))
    assert read(open_dataset(str(tmp_path / "in"), columns=["id"])) == list(range(11))


def test_a_column_without_values_fits_and_an_encoding_is_no_type(parquet, read, tmp_path):
    for name in ("a", "b"):
        empty = pa.table({"id": [0], "value": [1.0], "name": pa.nulls(1)})
        parquet(f"in/{name}.parquet", 0, 0, table=empty)
    coded = pa.table({"id": [1], "value": [1.0], "name": pa.array(["x"]).dictionary_encode()})
    parquet("in/c.parquet", 0, 0, table=coded)
    dataset = open_dataset(str(tmp_path / "in"))
    assert dataset.schema.field("name").type == pa.string()
    assert read(dataset, "name") == [None, None, "x"]


def test_a_file_that_is_written_after_the_plan_is_refused_before_and_after(parquet):
    path = parquet("x.parquet", 0, 500)
    pieces = cut(open_dataset(str(path)), 1000)
    batches = read_batches(pieces[0], ["id"], batch_rows=100)
    next(batches)
    os.utime(path, ns=(1, 1))  # touched while it is read
    with pytest.raises(InputChanged, match="Run the command again once it stands still"):
        list(batches)
    with pytest.raises(InputChanged):
        next(read_batches(pieces[0], ["id"], batch_rows=100))
    path.unlink()
    with pytest.raises(InputChanged, match="not there any more"):
        next(read_batches(pieces[0], ["id"], batch_rows=100))


def test_a_column_that_is_not_there_is_named(parquet):
    path = parquet("x.parquet", 0, 10)
    dataset = open_dataset(str(path))
    (piece,) = cut(dataset, 100)
    reading = piece.reading.model_copy(
        update={"columns": dataset.schema.append(pa.field("more", pa.int64()))}
    )
    with pytest.raises(InputBroken, match="column more is missing"):
        list(read_batches(piece.model_copy(update={"reading": reading}), ["more"], batch_rows=10))


def test_a_folder_that_may_not_be_listed_could_not_be_asked(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="Not a directory"):
        open_dataset(str(tmp_path / "file" / "below"))


def test_nested_and_wide_columns_are_read(tmp_path):
    table = pa.table({"list": [[1, 2], None, []], "x": np.arange(3, dtype=np.float32)})
    pq.write_table(table, tmp_path / "x.parquet")
    (piece,) = cut(open_dataset(str(tmp_path / "x.parquet")), 10)
    ((_, batch),) = read_batches(piece, ["list", "x"], batch_rows=10)
    assert batch.to_pylist() == table.to_pylist()


def test_the_page_about_inputs_runs_as_it_is_printed(tmp_path, monkeypatch):
    page = Path(__file__).parents[4] / "docs" / "inputs_and_outputs.md"
    (snippet,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, str(page), "exec"), {})
