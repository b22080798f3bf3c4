from pathlib import Path

import pyarrow as pa
import pytest

from tasks import commit
from tasks.commit import CommitRefused, NotCommitted


def table(first: int, rows: int) -> pa.Table:
    return pa.table({"row": range(first, first + rows), "prediction": [0.5] * rows})


@pytest.fixture
def folder(tmp_path):
    return commit.run_folder(str(tmp_path), "flight_delay", "run1")


def write(folder, shard, first, rows, rejected=0):
    return commit.write_shard(
        folder, shard, predicted=table(first, rows), rejected=table(0, rejected)
    )


def finish(folder, shards, rows):
    return commit.commit(
        folder, run="run1", model="flight_delay", bundle="d" * 64, rows=rows, shards=shards
    )


def test_readers_see_nothing_before_the_manifest_and_everything_after(folder):
    shards = [write(folder, "a", 0, 3), write(folder, "b", 3, 2)]
    with pytest.raises(NotCommitted, match=r"no manifest\.json"):
        commit.read_predictions(folder)
    finish(folder, shards, rows=5)
    assert commit.read_predictions(folder)["row"].to_pylist() == [0, 1, 2, 3, 4]


def test_rows_in_are_rows_predicted_plus_rejected_or_nothing_is_committed(folder):
    shards = [write(folder, "a", 0, 3, rejected=2)]
    with pytest.raises(CommitRefused, match="6 rows went in, 3 predicted \\+ 2 rejected came out"):
        finish(folder, shards, rows=6)
    assert commit.read_manifest(folder) is None
    manifest = finish(folder, shards, rows=5)
    assert (manifest.predicted, manifest.rejected) == (3, 2)
    assert commit.read_predictions(folder, rejected=True).num_rows == 2


def test_a_finished_shard_is_known_by_its_record_and_its_bytes(folder):
    record = write(folder, "a", 0, 3)
    assert commit.finished_shard(folder, "a") == record
    assert commit.finished_shard(folder, "b") is None
    part = Path(folder, record.predicted.name)
    part.write_bytes(part.read_bytes()[:-1])
    assert commit.finished_shard(folder, "a") is None


def test_a_half_written_record_means_the_shard_is_done_again(folder):
    write(folder, "a", 0, 3)
    record = Path(folder, "records", "a.json")
    record.write_bytes(record.read_bytes()[:20])
    assert commit.finished_shard(folder, "a") is None


def test_the_same_shard_written_twice_is_the_same_bytes(folder):
    first = write(folder, "a", 0, 3)
    files = sorted(p.name for p in Path(folder).iterdir())
    assert write(folder, "a", 0, 3) == first
    assert sorted(p.name for p in Path(folder).iterdir()) == files


def test_committing_twice_is_committing_once(folder):
    shards = [write(folder, "a", 0, 3)]
    assert finish(folder, shards, rows=3) == finish(folder, shards, rows=3)


def test_another_manifest_is_never_overwritten(folder):
    finish(folder, [write(folder, "a", 0, 3)], rows=3)
    with pytest.raises(CommitRefused, match="another manifest stands there"):
        finish(folder, [write(folder, "b", 0, 4)], rows=4)
    assert commit.read_predictions(folder).num_rows == 3


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_part_that_is_not_what_was_committed_is_refused(folder, damage):
    record = write(folder, "a", 0, 3)
    finish(folder, [record], rows=3)
    part = Path(folder, record.predicted.name)
    if damage == "remove":
        part.unlink()
    else:
        data = bytearray(part.read_bytes())
        data[40] ^= 1
        part.write_bytes(data)
    with pytest.raises(NotCommitted, match=record.predicted.name):
        commit.read_predictions(folder)
