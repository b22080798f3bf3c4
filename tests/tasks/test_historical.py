from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.join.out_of_core import write_historical_features
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings
from tasks import historical

TIMESTAMP = pa.timestamp("us", tz="UTC")
START = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)


def clock(minutes):
    return pa.array([START + m * 60_000_000 for m in minutes], pa.int64()).cast(TIMESTAMP)


def view(name, *keys):
    return ViewRead(
        view=name,
        table=name,
        join_keys=tuple(JoinKey(name=key) for key in keys),
        event_timestamp="event",
        created_timestamp="created",
        ttl_seconds=3600,
        features=(FeatureRead(name="x", dtype="INT64"), FeatureRead(name="name", dtype="STRING")),
    )


def values(rows):
    numbers = range(rows)
    return pa.table(
        {
            "a": [f"a{n % 11}" for n in numbers],
            "b": [f"b{n % 7}" for n in numbers],
            "event": clock(numbers),
            "created": clock(n + n % 4 * 9 for n in numbers),
            "x": pa.array(numbers, pa.int64()),
            "name": [f"value {n}" for n in numbers],
        }
    )


@pytest.mark.slow
def test_a_cluster_writes_the_bytes_that_one_process_writes(tmp_path):
    settings = Settings(home=tmp_path, workers=2)
    views = [view("one", "a"), view("two", "a", "b")]
    offline = settings.uri("offline")
    Path(offline).mkdir(parents=True)
    pa_rows = pa.table(
        {
            "a": [f"a{n % 13}" if n % 17 else None for n in range(900)],
            "b": [f"b{n % 5}" for n in range(900)],
            "at": clock((n * 37) % 700 for n in range(900)),
        }
    )
    for read in views:
        pq.write_table(values(600), f"{offline}/{read.table}.parquet", row_group_size=50)
    rows = str(tmp_path / "rows.parquet")
    pq.write_table(pa_rows, rows, row_group_size=100)
    alone, together = str(tmp_path / "alone.parquet"), str(tmp_path / "together.parquet")
    asked = {"timestamp": "at", "chunk_rows": 250}
    one = write_historical_features(rows, views, offline, alone, **asked)
    two = historical.write_historical_features(
        settings, rows, views, together, work_uri=str(tmp_path / "work"), **asked
    )
    assert one == two
    assert one.views[0].reasons["PRESENT"] > 100
    assert (tmp_path / "alone.parquet").read_bytes() == (tmp_path / "together.parquet").read_bytes()
