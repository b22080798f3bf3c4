"""kill -9 of ``python -m flows.batch_predict``, alone or with its Dask workers, then once more."""

import dataclasses

import pytest

from tasks.batch import commit


def hold_after(killing, batch, unkilled, kills):
    """Kill the batch some times, finish it, and hold it against one that was never killed."""
    points = killing.points(batch.shards, kills)
    assert killing(batch.job, batch.rows, points=points) == []
    assert killing.kills == kills
    manifest = commit.read_manifest(batch.output)
    assert manifest.digest == unkilled.digest
    assert batch.parts() == {file.name for shard in unkilled.shards for file in shard.files}


@pytest.mark.slow
def test_a_batch_killed_twice_is_the_batch_that_was_never_killed(killing, batch, unkilled):
    hold_after(killing, batch, unkilled, kills=2)


@pytest.mark.soak
@pytest.mark.parametrize("killing", range(10), indirect=True)
def test_sixty_kills_in_ten_batches_leave_no_trace(killing, batch, unkilled):
    hold_after(killing, dataclasses.replace(batch, workers=2), unkilled, kills=6)


@pytest.mark.parametrize("writer", ["append", "overwrite"])
def test_a_naive_writer_under_the_same_kills_is_found_out(killing, naive, writer):
    wrongs = killing(naive(writer, 30, 2_000), list(range(60_000)), points=killing.points(30, 3))
    assert killing.kills >= 1
    assert wrongs
