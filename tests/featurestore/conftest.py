"""Small tables of feature values, and the room's reads of them."""

import itertools
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import storage
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

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


@pytest.fixture
def at_home(tmp_path: Path) -> Settings:
    """Settings with everything below ``tmp_path``."""
    return Settings(home=tmp_path / "home")


@pytest.fixture(params=["sqlite", "redis"])
def any_store(request: pytest.FixtureRequest, at_home: Settings) -> Settings:
    """Settings with an empty online store of each kind, everything else below ``tmp_path``."""
    if request.param == "sqlite":
        return at_home
    return at_home.model_copy(update={"online_store": request.getfixturevalue("redis_url")})


_YAML = """\
project: tiny
provider: local
offline_store:
  type: featurestore.feast_plugins.offline_store.HeadraceOfflineStore
online_store:
  type: sqlite
entity_key_serialization_version: 3
"""

_DEFINITIONS = """\
from datetime import timedelta

import feast
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bool, Float32, Float64, Int64

origin = Entity(name="airport", join_keys=["origin"], value_type=ValueType.STRING)
gate = Entity(name="gate", join_keys=["gate"], value_type=ValueType.INT64)


def source(table):
    return FileSource(
        path=f"offline/{table}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )


hourly = FeatureView(
    name="hourly",
    entities=[origin],
    ttl=timedelta(minutes=TTL),
    schema=[Field(name="x", dtype=Float64)],
    source=source("hourly"),
)
gates = FeatureView(
    name="gates",
    entities=[origin, gate],
    ttl=timedelta(0),
    schema=[
        Field(name="passengers", dtype=Int64),
        Field(name="open", dtype=Bool),
        Field(name="wait", dtype=Float32),
    ],
    source=source("gates"),
)
both = FeatureService(name="both", features=[hourly, gates[["wait", "passengers"]]])
"""

_names = itertools.count()


@pytest.fixture
def tiny_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a small Feast repository of two views and a service, and return its package."""

    def write(
        *, yaml: str = _YAML, ttl: int = 60, edit: tuple[str, str] = ("", ""), more: str = ""
    ) -> str:
        package = f"tiny_{os.getpid()}_{next(_names)}"
        folder = tmp_path / package / "definitions"
        folder.mkdir(parents=True)
        for init in (folder.parent / "__init__.py", folder / "__init__.py"):
            init.write_text("")
        (folder.parent / "feature_store.yaml").write_text(yaml)
        text = _DEFINITIONS.replace("TTL", str(ttl)).replace(*edit) + more
        (folder / "views.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return package

    return write
