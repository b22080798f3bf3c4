"""What Dask workers do in the tests of dying workers: write a shard, well or naively."""

import os
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output import ShardRecord, finished_shard, write_shard

ROWS = 500


def table(number: int) -> pa.Table:
    """The rows of a shard: no two shards have one in common."""
    rows = range(number * ROWS, (number + 1) * ROWS)
    return pa.table({"row": rows, "prediction": [row / 7 for row in rows]})


def write(output: str, number: int, seconds: float) -> ShardRecord:
    """Score for some seconds, then write by the commit protocol; what is recorded is kept."""
    shard = f"{number:04}"
    done = finished_shard(output, shard)
    if done:
        return done
    note(output, number)
    time.sleep(seconds)
    return write_shard(output, shard, predicted=table(number))


def append(output: str, number: int, seconds: float) -> int:
    """Write as an "append" job does: a new name each time; then finish in one's own time."""
    Path(output, "shards").mkdir(parents=True, exist_ok=True)
    pq.write_table(table(number), Path(output, f"part-{uuid.uuid4().hex}.parquet"))
    Path(output, "shards", f"{number:04}.json").touch()
    time.sleep(seconds)
    return number


def note(output: str, number: int) -> None:
    """Leave a trace of having begun, so that work done twice can be counted."""
    folder = Path(output).with_name("begun")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:04}.{os.getpid()}.{time.monotonic_ns()}").touch()


def recorded(output: str) -> int:
    """How many shards are recorded."""
    return sum(1 for _ in Path(output, "shards").glob("*.json"))


def begun(output: str) -> int:
    """How many times a shard was begun."""
    return sum(1 for _ in Path(output).with_name("begun").glob("*"))
