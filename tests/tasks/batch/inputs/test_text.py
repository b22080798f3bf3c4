"""CSV and JSON lines: types once, bad rows by position, bad files by name."""

import gzip
import json

import pyarrow as pa
import pytest

from tasks.batch.inputs import (
    UNREADABLE,
    InputBroken,
    InputTooLarge,
    cut,
    open_dataset,
    read_batches,
)

GOOD = [f"{i},2013-01-01T00:00:{i:02d}Z,place {i},{i / 4}" for i in range(40)]


def whole(dataset, columns=None):
    """All rows of a dataset of one file."""
    (piece,) = cut(dataset, 10)
    columns = columns or dataset.schema.names
    batches = list(read_batches(piece, columns, batch_rows=16))
    assert [position for position, _ in batches] == list(range(0, piece.rows, 16))
    return pa.concat_tables([batch for _, batch in batches])


def bad(table):
    """Position and reason of each bad row."""
    return {i: reason for i, reason in enumerate(table[UNREADABLE].to_pylist()) if reason}


def test_types_are_inferred_and_rows_counted(tmp_path):
    (tmp_path / "x.csv").write_text("\n".join(["id,at,place,share", *GOOD]))
    dataset = open_dataset(str(tmp_path / "x.csv"))
    assert dataset.schema == pa.schema(
        {
            "id": pa.int64(),
            "at": pa.timestamp("us", "UTC"),
            "place": pa.string(),
            "share": pa.float64(),
        }
    )
    table = whole(dataset)
    assert table["id"].to_pylist() == list(range(40))
    assert not bad(table)


def test_a_value_that_does_not_fit_spoils_its_row_alone(tmp_path):
    rows = list(GOOD)
    rows[3] = "three,2013-01-01T00:00:03Z,x,1"
    rows[7] = "7,yesterday,x,1"
    rows[11] = "11,2013-01-01T00:00:03Z"
    rows[20] = '20,NA,"two\nlines, one field",NA'
    (tmp_path / "x.csv").write_text("\n".join(["id,at,place,share", *rows]))
    table = whole(open_dataset(str(tmp_path / "x.csv")))
    assert bad(table) == {
        3: "id is 'three', no int64",
        7: "at is 'yesterday', no timestamp[us, tz=UTC]",
        11: "it has 2 fields where the header has 4",
    }
    assert table["place"][20].as_py() == "two\nlines, one field"
    assert table["share"][20].as_py() is None
    assert table.num_rows == 40


def test_a_type_that_is_known_wins_over_the_sample(tmp_path):
    (tmp_path / "x.csv").write_text("id,code\n1,7\n2,x\n")
    asked = open_dataset(str(tmp_path / "x.csv"), types={"code": pa.float64()})
    assert bad(whole(asked)) == {1: "code is 'x', no double"}
    assert open_dataset(str(tmp_path / "x.csv")).schema.field("code").type == pa.string()


def test_packed_text_and_bytes_that_are_no_utf8(tmp_path):
    data = "id,place\n1,Málaga\n2,x\n".encode() + b"3,M\xe1laga\n" + b"4,y\n"
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + data, mtime=0))
    table = whole(open_dataset(str(tmp_path / "x.csv.gz")))
    assert table["id"].to_pylist() == [1, 2, None, 4]
    assert bad(table) == {2: "it is not UTF-8"}


def test_json_lines_are_typed_strictly(tmp_path):
    rows = [{"id": i, "share": i / 4, "ok": True, "at": "2013-01-01T00:00:00Z"} for i in range(20)]
    lines = [json.dumps(row) for row in rows]
    lines += ['{"id": "21"}', '{"id": 21', "[1]", '{"share": "x"}', '{"id": NaN}', '{"id": null}']
    lines += [json.dumps({"id": 1 << 70})]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    dataset = open_dataset(str(tmp_path / "x.jsonl"))
    assert [str(field.type) for field in dataset.schema] == [
        "int64",
        "double",
        "bool",
        "timestamp[us, tz=UTC]",
    ]
    found = bad(whole(dataset))
    assert sorted(found) == [20, 21, 22, 23, 24, 26]
    assert found[20] == "id is '21', no int64"
    assert found[22] == "it is no JSON object"


def test_numbers_with_and_without_a_fraction_are_numbers(tmp_path):
    lines = [f'{{"share": {value}}}' for value in ["1", "2.5", "3", "4", "5", "6", "7", "8"]]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    dataset = open_dataset(str(tmp_path / "x.jsonl"))
    assert dataset.schema.field("share").type == pa.float64()
    assert not bad(whole(dataset))


def test_types_are_those_of_all_files_together(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,\n2,\n")
    (tmp_path / "b.csv").write_text("id,x\n3,1.5\n")
    dataset = open_dataset(str(tmp_path))
    assert dataset.schema.field("x").type == pa.float64()
    assert dataset.rows == 3


def test_a_file_beyond_the_limit_is_told_to_become_parquet(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"id\n" + b"1\n" * 100_000, mtime=0))
    with pytest.raises(InputTooLarge, match="Write it as Parquet"):
        open_dataset(str(tmp_path / "x.csv.gz"), text_limit_bytes=10_000)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.csv", b"", "no header line"),
        ("x.csv", b"id,id\n1,2\n", "a name twice"),
        ("x.csv.gz", gzip.compress(b"id\n" + b"1\n" * 9999, mtime=0)[:-20], "no whole gzip file"),
        ("x.csv.gz", b"id\n1\n", "no whole gzip file"),
        ("x.csv", b"id\n" + b"x" * (5 << 20), "a line has more than 4 MB"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_named(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputBroken, match=reason) as broken:
        open_dataset(str(tmp_path / name))
    assert broken.value.uri == str(tmp_path / name)
    (tmp_path / f"good{name}").write_bytes(
        gzip.compress(b"id\n1\n", mtime=0) if name.endswith("gz") else b"id\n1\n"
    )
    skipping = open_dataset(str(tmp_path), bad_files="skip")
    assert (skipping.rows, len(skipping.quarantined)) == (1, 1)


def test_another_header_is_another_table(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    (tmp_path / "b.csv").write_text("id,y\n1,2\n")
    with pytest.raises(InputBroken, match=r"b\.csv .*header .*differs from"):
        open_dataset(str(tmp_path))
