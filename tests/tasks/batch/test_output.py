import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import DiskFull, NameRefused, SchemaMismatch
from tasks.batch import output, parts
from tasks.batch.output import ShardWriter, finished_shard, finished_shards, write_shard
from tasks.batch.parts import PartRefused


def rows(first: int, count: int) -> pa.Table:
    number = np.arange(first, first + count)
    return pa.table(
        {
            "carrier": pa.array(["AA", "UA", None]).take(pa.array(number % 3)),
            "row": number,
            "moment": pa.array(number * 1_000_000, pa.timestamp("us", "UTC")),
            "prediction": (number % 7 / 7).astype(np.float32),
        }
    )


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def files(out: str) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in Path(out).rglob("*") if p.is_file())


def test_a_shard_is_a_part_and_a_record(out):
    record = write_shard(out, "a", predicted=rows(0, 3))
    assert files(out) == [f"parts/{record.predicted.name}", "shards/a.json"]
    assert record.rows == record.predicted.rows == 3
    assert parts.read_part(out, record.predicted) == rows(0, 3)


def test_rejected_rows_are_a_part_of_their_own(out):
    reasons = pa.table({"row": [3], "reason": ["distance is null"]})
    record = write_shard(out, "a", predicted=rows(0, 3), rejected=reasons)
    assert record.rows == 4
    assert record.rejected.name.startswith("rejected-a-")
    assert parts.read_part(out, record.rejected) == reasons


def test_a_part_is_named_by_its_hash(out):
    file = write_shard(out, "a", predicted=rows(0, 3)).predicted
    data = Path(out, "parts", file.name).read_bytes()
    assert file.bytes == len(data)
    assert file.name == f"part-a-{file.sha256[:16]}.parquet"


def test_equal_rows_are_equal_bytes_however_they_are_divided(out, monkeypatch):
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 1_000)
    whole = write_shard(out, "a", predicted=rows(0, 4_321))
    with ShardWriter(out, "a") as writer:
        for first in range(0, 4_321, 77):
            batch = rows(first, min(77, 4_321 - first))
            writer.add(predicted=pa.concat_tables([batch.slice(0, 5), batch.slice(5)]))
    assert writer.record == whole
    written = pq.ParquetFile(Path(out, "parts", whole.predicted.name))
    groups = [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)]
    assert groups == [1_000] * 4 + [321]


def test_a_shard_without_good_rows_has_a_part_with_columns_and_no_rows(out):
    record = write_shard(out, "a", predicted=rows(0, 0), rejected=rows(0, 2))
    assert parts.read_part(out, record.predicted).schema == rows(0, 0).schema
    assert (record.rows, record.predicted.rows) == (2, 0)


def test_a_batch_with_other_columns_is_refused_and_nothing_is_published(out):
    def write():
        with ShardWriter(out, "a") as writer:
            writer.add(predicted=pa.table({"row": [1]}))
            writer.add(predicted=pa.table({"row": [1.5]}))

    with pytest.raises(SchemaMismatch, match="row double"):
        write()
    assert files(out) == []


def test_a_disk_that_is_full_amid_a_batch_is_told_as_one(out, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts._HashedFile, "write", full)
    with pytest.raises(DiskFull, match=r"parts: No space left on device.*free some space"):
        write_shard(out, "a", predicted=rows(0, 3))
    assert files(out) == []


def test_what_goes_wrong_beside_the_writing_is_not_told_as_a_failed_write(out):
    def write():
        with ShardWriter(out, "a"):
            raise ConnectionError("the input is away")

    with pytest.raises(ConnectionError, match="the input is away"):
        write()


def test_a_finished_shard_is_known_by_its_record_and_every_byte_of_its_parts(out):
    record = write_shard(out, "a", predicted=rows(0, 3), rejected=rows(3, 1))
    assert finished_shard(out, "a") == record
    assert finished_shard(out, "b") is None
    for file in record.files:
        part = Path(out, "parts", file.name)
        good = part.read_bytes()
        for bad in (good[:-1], good[:50] + bytes([good[50] ^ 1]) + good[51:]):
            part.write_bytes(bad)
            assert finished_shard(out, "a") is None
        part.write_bytes(good)
    assert finished_shard(out, "a") == record


def test_a_record_with_any_bit_flipped_means_the_shard_is_done_again(out):
    record = write_shard(out, "a", predicted=rows(0, 3))
    path = Path(out, "shards", "a.json")
    good = path.read_bytes()
    for position in range(0, len(good), 17):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        assert finished_shard(out, "a") is None, position
    path.write_bytes(b"")  # what a power cut may leave
    assert finished_shard(out, "a") is None
    assert write_shard(out, "a", predicted=rows(0, 3)) == record


def test_what_is_finished_is_found_with_one_listing(out, monkeypatch):
    written = {name: write_shard(out, name, predicted=rows(0, 3)) for name in ("a", "b", "c")}
    Path(out, "shards", "b.json").write_text("{")
    listed = []
    ask = output.storage.list_names
    monkeypatch.setattr(output.storage, "list_names", lambda uri: listed.append(uri) or ask(uri))
    found = finished_shards(out, "abcdefghijklmnopqrstuvwxyz")
    assert found == {"a": written["a"], "c": written["c"]}
    assert listed == [f"{out}/shards"]


def test_a_missing_or_longer_part_is_refused_by_name(out):
    file = write_shard(out, "a", predicted=rows(0, 3)).predicted
    part = Path(out, "parts", file.name)
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(PartRefused, match=f"{file.name} is refused: it has {file.bytes + 1} bytes"):
        parts.read_part(out, file)
    part.unlink()
    with pytest.raises(PartRefused, match="it is missing"):
        parts.read_part(out, file)


def test_a_shards_name_never_leaves_its_folder(out):
    with pytest.raises(NameRefused):
        write_shard(out, "../a", predicted=rows(0, 1))


def test_memory_is_bounded_by_a_row_group(out):
    with ShardWriter(out, "a") as writer:
        writer.add(predicted=rows(0, 200_000))
        before = pa.total_allocated_bytes()
        for number in range(1, 8):
            writer.add(predicted=rows(number * 200_000, 200_000))
        grown = pa.total_allocated_bytes() - before
    assert writer.record.rows == 1_600_000
    assert grown < 3 * rows(0, parts.ROW_GROUP_ROWS).nbytes
