import json
import re
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.sealed import Damaged
from tasks.batch import commit
from tasks.batch.clean import clean
from tasks.batch.clean import main as clean_command
from tasks.batch.commit import CommitRefused, NotCommitted
from tasks.batch.lease import LeaseLost, held, take
from tasks.batch.output import ShardRecord, finished_shard, write_shard
from tasks.batch.parts import PartRefused


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def write(out: str, shard: str, first: int, rows: int, rejected: int = 0) -> ShardRecord:
    predicted = pa.table({"row": range(first, first + rows), "prediction": [0.5] * rows})
    reasons = pa.table({"row": range(rejected), "reason": ["distance is null"] * rejected})
    return write_shard(out, shard, predicted=predicted, rejected=reasons)


def finish(out, shards, rows, *, run="run1", epoch=None, **facts):
    if epoch is None:
        with held(out, owner=run) as lease:
            return finish(out, shards, rows, run=run, epoch=lease, **facts)
    return commit.commit(
        out,
        lease=epoch,
        run=run,
        model="flight_delay",
        bundle="d" * 64,
        input="flights",
        rows=rows,
        shards=shards,
        facts=facts,
    )


def manifests(out):
    return sorted(path.name for path in Path(out, "manifests").glob("*"))


def test_readers_see_nothing_before_the_manifest_and_everything_after(out):
    shards = [write(out, "a", 0, 3), write(out, "b", 3, 2)]
    with pytest.raises(NotCommitted, match="no run has committed"):
        commit.read_predictions(out)
    finish(out, shards, rows=5)
    assert commit.read_predictions(out)["row"].to_pylist() == [0, 1, 2, 3, 4]


def test_rows_in_are_rows_predicted_plus_rejected_or_nothing_is_committed(out):
    shards = [write(out, "a", 0, 3, rejected=2)]
    with pytest.raises(CommitRefused, match="6 rows went in, 3 predicted \\+ 2 rejected came out"):
        finish(out, shards, rows=6)
    assert manifests(out) == []
    manifest = finish(out, shards, rows=5)
    assert (manifest.predicted, manifest.rejected) == (3, 2)
    assert commit.read_predictions(out, rejected=True).num_rows == 2


def test_a_shard_that_is_there_twice_is_refused(out):
    shard = write(out, "a", 0, 3)
    with pytest.raises(CommitRefused, match="shard a is there twice"):
        finish(out, [shard, shard], rows=6)


def test_a_part_that_somebody_removed_is_refused(out):
    shard = write(out, "a", 0, 3)
    Path(out, "parts", shard.predicted.name).unlink()
    with pytest.raises(CommitRefused, match=f"1 parts are missing, {shard.predicted.name} is one"):
        finish(out, [shard], rows=3)


def test_an_input_without_rows_is_committed_too(out):
    assert finish(out, [], rows=0).rows == 0
    assert commit.read_predictions(out).num_rows == 0


def test_the_same_run_is_committed_once_and_its_digest_tells(out, tmp_path):
    shards = [write(out, "a", 0, 3)]
    first = finish(out, shards, rows=3, seconds=1.5)
    assert finish(out, shards, rows=3, seconds=7.5) == first
    assert manifests(out) == ["00000001.json"]
    elsewhere = str(tmp_path / "elsewhere")
    with held(elsewhere, owner="somebody"):
        pass
    again = finish(elsewhere, [write(elsewhere, "a", 0, 3)], rows=3)
    assert (again.epoch, first.epoch) == (2, 1)
    assert again.digest == first.digest


def test_another_run_is_the_next_revision_and_the_one_before_can_still_be_read(out):
    kept = write(out, "a", 0, 3)
    finish(out, [kept, write(out, "b", 3, 2)], rows=5)
    finish(out, [kept, write(out, "c", 7, 1)], rows=4, run="run2")
    assert commit.read_predictions(out)["row"].to_pylist() == [0, 1, 2, 7]
    assert commit.read_predictions(out, revision=1)["row"].to_pylist() == [0, 1, 2, 3, 4]
    assert [one.run for one in commit.history(out)] == ["run1", "run2"]
    with pytest.raises(NotCommitted, match="there is no revision 3"):
        commit.read_predictions(out, revision=3)


def test_whether_a_run_is_committed_is_asked_of_the_newest_revision(out):
    shards = [write(out, "a", 0, 3)]
    finish(out, shards, rows=3)
    assert commit.is_committed(out, "run1").revision == 1
    finish(out, [write(out, "b", 0, 2)], rows=2, run="run2")
    assert commit.is_committed(out, "run1") is None
    assert finish(out, shards, rows=3).revision == 3


def test_an_owner_that_was_taken_over_commits_nothing(out):
    old = take(out, owner="old", seconds=15, after=0)
    new = take(out, owner="new", seconds=15, after=1)
    shards = [write(out, "a", 0, 3)]
    with pytest.raises(LeaseLost, match="epoch 1, another one does in epoch 2"):
        finish(out, shards, rows=3, epoch=old)
    assert finish(out, shards, rows=3, epoch=new).epoch == 2
    assert finish(out, shards, rows=3, epoch=old).epoch == 2  # its own work: it is done


def test_an_owner_that_wakes_up_amid_its_commit_is_fenced_by_the_epoch(out, monkeypatch):
    old = take(out, owner="old", seconds=15, after=0)
    shards = [write(out, "a", 0, 3)]
    confirm = type(old).confirm

    def overtaken(lease):
        confirm(lease)
        if lease is old:
            monkeypatch.undo()
            new = take(out, owner="new", seconds=15, after=1)
            finish(out, [write(out, "b", 0, 2)], rows=2, run="run2", epoch=new)

    monkeypatch.setattr(type(old), "confirm", overtaken)
    with pytest.raises(LeaseLost):
        finish(out, shards, rows=3, epoch=old)
    assert [one.run for one in commit.history(out)] == ["run2"]


def test_of_many_equal_commits_at_once_there_is_one_manifest(out):
    shards = [write(out, "a", 0, 3)]
    lease = take(out, owner="all", seconds=15, after=0)
    barrier, got = threading.Barrier(8), []

    def run():
        barrier.wait()
        got.append(finish(out, shards, rows=3, epoch=lease))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert manifests(out) == ["00000001.json"]
    assert got == [got[0]] * 8


def test_a_manifest_is_plain_json_that_any_language_reads(out):
    finish(out, [write(out, "a", 0, 3)], rows=3)
    document = json.loads(Path(out, "manifests", "00000001.json").read_text())
    assert document["shards"][0]["predicted"]["rows"] == 3
    assert document["writer"].startswith("pyarrow ")


def test_a_manifest_with_any_byte_changed_or_cut_off_is_refused_and_no_older_one_is_taken(out):
    finish(out, [write(out, "a", 0, 3)], rows=3)
    finish(out, [write(out, "b", 0, 2)], rows=2, run="run2")
    path = Path(out, "manifests", "00000002.json")
    good = path.read_bytes()
    for position in range(0, len(good), 11):
        for bad in (
            good[:position],
            good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :],
        ):
            path.write_bytes(bad)
            with pytest.raises(Damaged, match=r"00000002\.json is damaged"):
                commit.read_predictions(out)


def test_a_part_that_is_not_what_was_committed_is_refused(out):
    record = write(out, "a", 0, 3)
    finish(out, [record], rows=3)
    part = Path(out, "parts", record.predicted.name)
    data = bytearray(part.read_bytes())
    data[40] ^= 1
    part.write_bytes(data)
    with pytest.raises(PartRefused, match=record.predicted.name):
        commit.read_predictions(out)


def test_cleaning_keeps_what_the_newest_revisions_name(out):
    kept = write(out, "a", 0, 3)
    finish(out, [kept, write(out, "b", 3, 2)], rows=5)
    finish(out, [kept, write(out, "c", 7, 1)], rows=4, run="run2")
    write(out, "never-committed", 0, 1)
    cleaned = clean(out, keep=1)
    assert (cleaned.parts, cleaned.shards, cleaned.oldest) == (2, 2, 2)
    assert commit.read_predictions(out)["row"].to_pylist() == [0, 1, 2, 7]
    assert finished_shard(out, "a") == kept
    with pytest.raises(NotCommitted, match="revision 1 was cleaned away; 2 is the oldest"):
        commit.read_predictions(out, revision=1)
    assert clean(out, keep=1).parts == 0
    assert len(commit.history(out)) == 3


def test_a_run_that_was_given_up_cannot_commit_parts_that_were_cleaned_away(out, monkeypatch):
    finish(out, [write(out, "a", 0, 3)], rows=3)
    zombie = take(out, owner="zombie", seconds=0.5, after=1)
    shards = [write(out, "b", 0, 2)]
    confirm = type(zombie).confirm

    def overtaken(lease):
        confirm(lease)
        monkeypatch.undo()
        Path(out, "leases", "00000002.beat").write_bytes(b"ended")
        assert clean(out).parts == 1

    monkeypatch.setattr(type(zombie), "confirm", overtaken)
    with pytest.raises(LeaseLost):
        finish(out, shards, rows=2, run="run2", epoch=zombie)
    assert commit.read_predictions(out).num_rows == 3


def test_the_clean_command_says_what_is_gone(out, capsys):
    finish(out, [write(out, "a", 0, 3)], rows=3)
    write(out, "b", 0, 1)
    assert clean_command([out, "--keep", "1"]) == 0
    assert "removed 1 parts and 1 records; revision 1 and later" in capsys.readouterr().out
    assert clean_command([f"{out}-none"]) == 1
    assert "no run has committed" in capsys.readouterr().err


def test_the_page_reads_an_output_as_it_says(out, capsys):
    record = write(out, "a", 0, 3, rejected=1)
    finish(out, [record], rows=4)
    page = Path(__file__).parents[3] / "docs" / "commit_protocol.md"
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), {"output": out})
    assert capsys.readouterr().out.splitlines() == ["3", f"{out}/parts/{record.predicted.name}"]
