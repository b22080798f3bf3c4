"""Small tables of feature values, and the room's reads of them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import storage
from headrace.plan import FeatureRead, JoinKey, ViewRead

TIMESTAMP = pa.timestamp("us", tz="UTC")
START = datetime(2013, 1, 1, tzinfo=UTC)


def minute(n: float) -> datetime:
    """``n`` minutes into 2013, UTC."""
    return START + timedelta(minutes=n)


def times(minutes: Sequence[float | None]) -> pa.Array:
    return pa.array([None if m is None else minute(m) for m in minutes], TIMESTAMP)


@pytest.fixture
def read() -> Callable[..., ViewRead]:
    """Make a read of view ``hourly``: keys ``origin`` unless told, one DOUBLE feature ``x``."""

    def make(
        *, ttl_minutes: float | None = 60, keys: Sequence[JoinKey] = (), **fields: Any
    ) -> ViewRead:
        plain = {
            "view": "hourly",
            "table": "hourly",
            "join_keys": tuple(keys) or (JoinKey(name="origin"),),
            "event_timestamp": "event_timestamp",
            "created_timestamp": "created_timestamp",
            "ttl_seconds": None if ttl_minutes is None else ttl_minutes * 60,
            "features": (FeatureRead(name="x", dtype="DOUBLE"),),
        }
        return ViewRead(**(plain | fields))

    return make


@pytest.fixture
def values() -> Callable[..., pa.Table]:
    """Make a table of values: (origin, event minute, created minute, x) a row."""

    def make(*rows: tuple[str | None, float, float, float | None]) -> pa.Table:
        origins, events, created, xs = zip(*rows, strict=True) if rows else ((), (), (), ())
        return pa.table(
            {
                "origin": pa.array(origins, pa.string()),
                "event_timestamp": times(events),
                "created_timestamp": times(created),
                "x": pa.array(xs, pa.float64()),
            }
        )

    return make


@pytest.fixture
def asked() -> Callable[..., pa.Table]:
    """Make a table of rows to join: (origin, minute) a row."""

    def make(*rows: tuple[str | None, float]) -> pa.Table:
        origins, at = zip(*rows, strict=True) if rows else ((), ())
        return pa.table({"origin": pa.array(origins, pa.string()), "at": times(at)})

    return make


@pytest.fixture
def put_table() -> Callable[..., None]:
    """Write a table where the offline store has it, in row groups of four rows."""

    def put(root: str, name: str, table: pa.Table, **options: Any) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=4, write_page_checksum=True, **options)
        storage.write_atomic(f"{root}/{name}.parquet", sink.getvalue().to_pybytes())

    return put
