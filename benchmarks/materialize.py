"""Materialise a million entities by ten features into Redis and SQLite: Feast, us, the bare bytes.

Each side is timed per row, over a table of its own size, in rounds that take turns; the best round
counts. Feast is ``FeatureStore.materialize`` with the better of two offline stores, its own default
and ours (which joins faster). Ours is ``materialize`` from the Parquet file to the moved watermark.
"Direct" reads the same file, encodes it with the same code and writes the same bytes with nothing
asked and nothing compared: into Redis pipelined ``HSET`` commands, made while the ones before are
under way; into SQLite ``executemany``, a row a feature, sorted, in one transaction.
"""

import contextlib
import io
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import Figures, arguments, redis_server, show
from featurestore.catalog.catalog import Catalog
from featurestore.stores import redis_layout, sqlite_layout
from featurestore.stores.encode import constant, entity_keys, join, timestamps, whole
from featurestore.stores.materialize import materialize
from featurestore.stores.redis_calls import as_words
from featurestore.stores.resp import Connection, command
from featurestore.stores.rows import EncodedRows, encode_rows
from featurestore.stores.stored import StoredView, stored_view
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

PROJECT = "bench"
UNTIL = datetime(2014, 1, 1, tzinfo=UTC)
FEATURES = {f"d{i}": "DOUBLE" for i in range(5)}
FEATURES |= {f"f{i}": "FLOAT" for i in range(3)} | {f"i{i}": "INT64" for i in range(2)}
FEAST_OFFLINE = ("dask", "featurestore.feast_plugins.offline_store.HeadraceOfflineStore")
PIPELINE_ROWS = 8192


@dataclass(frozen=True)
class Case:
    """A table of some entities, and the view over it."""

    folder: Path
    rows: int

    @property
    def view(self) -> ViewRead:
        """The view as Headrace reads it; each size has its own."""
        return ViewRead(
            view=f"view_{self.rows}",
            table=f"view_{self.rows}",
            join_keys=(JoinKey(name="customer", dtype="INT64"),),
            event_timestamp="event_timestamp",
            created_timestamp="created_timestamp",
            ttl_seconds=None,
            features=tuple(FeatureRead(name=n, dtype=t) for n, t in FEATURES.items()),
        )

    @property
    def path(self) -> Path:
        """The Parquet file."""
        return self.folder / "storage" / "offline" / f"view_{self.rows}.parquet"

    def write(self) -> None:
        """Write the table: one row an entity, entities and times in no order."""
        chance = np.random.default_rng(7)
        n, start = self.rows, 1_357_000_000_000_000
        clock = pa.timestamp("us", tz="UTC")
        columns: dict[str, Any] = {
            "customer": chance.permutation(n),
            "event_timestamp": pa.array(start + chance.integers(0, 10**12, n)).cast(clock),
            "created_timestamp": pa.array(np.full(n, start + 10**12)).cast(clock),
        }
        for name, dtype in FEATURES.items():
            kind = np.float32 if dtype == "FLOAT" else np.float64
            integers = dtype == "INT64"
            columns[name] = chance.integers(-9, 10**6, n) if integers else chance.random(n, kind)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), self.path, write_page_checksum=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    quick = arguments("materialize", argv).quick
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as url:
        folder = Path(name)
        big, small = (Case(folder, n) for n in ((60_000, 3_000) if quick else (1_000_000, 20_000)))
        for case in (big, small):
            case.write()
        times = {}
        for store, online in (("redis", url), ("sqlite", str(folder / "online.db"))):
            rounds = 1 if quick or store == "sqlite" else 3
            times |= {
                (store, side): seconds
                for side, seconds in best_of(rounds, big, small, online).items()
            }
            print(f"{store}: done", flush=True)
    report(times, big, small)


def best_of(rounds: int, big: Case, small: Case, online: str) -> dict[str, float]:
    """The best seconds a row of each side, in rounds that take turns; results checked equal."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for offline in FEAST_OFFLINE:
            empty(online)
            keep_best(best, "feast", feast(small, online, offline) / small.rows)
        wanted = sample(small, online)
        empty(online)
        ours(small, online)
        check(wanted, sample(small, online), "ours", "Feast's")
        empty(online)
        keep_best(best, "direct", direct(big, online) / big.rows)
        wanted = sample(big, online)
        empty(online)
        keep_best(best, "ours", ours(big, online) / big.rows)
        check(wanted, sample(big, online), "ours", "the bare bytes")
    return best


def keep_best(best: dict[str, float], side: str, seconds: float) -> None:
    """Keep the least."""
    best[side] = min(seconds, best.get(side, seconds))


def report(times: dict[tuple[str, str], float], big: Case, small: Case) -> None:
    """Show what each side needs for a row, and the ratios."""
    goals = {
        ("redis", "feast"): 20,
        ("redis", "direct"): 2,
        ("sqlite", "feast"): 3.5,
        ("sqlite", "direct"): 2,
    }
    rows, figures = [], Figures()
    for store in ("redis", "sqlite"):
        for side, case in (("feast", small), ("direct", big), ("ours", big)):
            a_row = times[store, side]
            figure = f"{a_row * 1e6:.1f} us a row, {1 / a_row:,.0f} rows/s of {case.rows:,}"
            rows.append((f"{store}: {side}", figure, ""))
        over = times[store, "feast"] / times[store, "ours"]
        under = times[store, "ours"] / times[store, "direct"]
        figures[f"{store}_feast_time_over_ours"] = over
        figures[f"{store}_time_over_direct"] = under
        rows.append((f"{store}: Feast over ours", f"{over:.1f}", f">= {goals[store, 'feast']}"))
        rows.append((f"{store}: ours over direct", f"{under:.2f}", f"<= {goals[store, 'direct']}"))
    show("materialize", rows, figures)


def ours(case: Case, online: str) -> float:
    """Seconds of Headrace's materialisation."""
    settings = Settings(home=case.folder, online_store=online)
    catalog = Catalog(project=PROJECT, definitions_sha256="", views=(case.view,), services={})
    begun = time.perf_counter()
    (done,) = materialize(settings, catalog, until=UNTIL)
    seconds = time.perf_counter() - begun
    assert done.keys_written == case.rows, done
    return seconds


def feast(case: Case, online: str, offline: str) -> float:
    """Seconds of Feast's materialisation."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, Float64, Int64

    types = {"DOUBLE": Float64, "FLOAT": Float32, "INT64": Int64}
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.INT64)
    view = FeatureView(
        name=case.view.view,
        entities=[customer],
        ttl=timedelta(days=10_000),
        schema=[Field(name=name, dtype=types[dtype]) for name, dtype in FEATURES.items()],
        source=FileSource(
            path=str(case.path),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    stores: dict[str, Any] = {"type": "sqlite", "path": online}
    if "://" in online:
        address = online.removeprefix("redis://").removesuffix("/0")
        stores = {"type": "redis", "connection_string": address}
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(case.folder / f"registry_{offline[:4]}_{stores['type']}.db"),
        online_store=stores,
        offline_store=offline,
        entity_key_serialization_version=3,
    )
    with quiet():
        store = FeatureStore(config=config)
        store.apply([customer, view])
        begun = time.perf_counter()
        store.materialize(datetime(2012, 1, 1, tzinfo=UTC), UNTIL)
        return time.perf_counter() - begun


def direct(case: Case, online: str) -> float:
    """Seconds of reading, encoding and writing the same bytes, and nothing else."""
    begun = time.perf_counter()
    rows = pq.read_table(case.path)
    stored = StoredView(view=stored_view(case.view))
    if "://" in online:
        direct_redis(stored, rows, online)
    else:
        direct_sqlite(stored, rows, online)
    return time.perf_counter() - begun


def direct_redis(stored: StoredView, rows: pa.Table, url: str) -> None:
    """Pipelined HSETs, the next ones made while the ones before are under way."""
    connection = Connection(url, timeout_seconds=60)
    with contextlib.closing(connection), ThreadPoolExecutor(1) as sender:
        under_way = None
        for start in range(0, len(rows), PIPELINE_ROWS):
            some = encode_rows(stored, rows.slice(start, PIPELINE_ROWS))
            commands = hsets(stored, some)
            if under_way:
                under_way.result()
            under_way = sender.submit(connection.ask, commands, replies=len(some.keys))
        if under_way:
            under_way.result()


def hsets(stored: StoredView, rows: EncodedRows) -> bytes:
    """One HSET a row, with all its fields."""
    view = stored.view.view
    fields = [redis_layout.feature_field(view, f.name) for f in stored.view.features]
    fields += [redis_layout.timestamp_field(view), redis_layout.packed_field(view)]
    values = [*rows.messages, timestamps(rows.event_us), whole(rows.packed)]
    words = 2 + 2 * len(fields)
    parts = [constant(b"*%d\r\n$4\r\nHSET\r\n" % words)]
    parts += as_words(join(rows.keys, constant(PROJECT.encode())))
    for field, column in zip(fields, values, strict=True):
        parts += [constant(b"$%d\r\n%b\r\n" % (len(field), field)), *as_words(column)]
    return join(*parts).buffers()[2].to_pybytes()


def direct_sqlite(stored: StoredView, rows: pa.Table, path: str) -> None:
    """One executemany a table, sorted, in one transaction."""
    view = stored.view
    encoded = encode_rows(stored, rows)
    encoded = encoded.take(np.asarray(pc.array_sort_indices(encoded.keys)))
    keys = encoded.keys.to_pylist()
    columns = [column.to_pylist() for column in encoded.messages]
    names = [feature.name for feature in view.features]
    event, created = ((us // 10**6).tolist() for us in (encoded.event_us, encoded.created_us))
    packed, size = encoded.packed.tobytes(), encoded.packed.shape[1]
    table = sqlite_layout.table_of(PROJECT, view.view)
    copies = sqlite_layout.packed_table_of(PROJECT, view.view)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        sqlite_layout.create_views_table(db)
        sqlite_layout.create_tables(db, PROJECT, view.view, numbers_only=True)
        db.execute("BEGIN")
        db.executemany(
            f"INSERT INTO {table} (entity_key, feature_name, value, event_ts, created_ts) "
            "VALUES (?, ?, ?, ?, ?)",
            (
                (keys[row], name, column[row], event[row], created[row])
                for row in range(len(keys))
                for name, column in zip(names, columns, strict=True)
            ),
        )
        db.executemany(
            f"INSERT INTO {copies} VALUES (?, ?)",
            ((key, packed[n * size : (n + 1) * size]) for n, key in enumerate(keys)),
        )
        db.execute("COMMIT")


def sample(case: Case, online: str) -> list[Any]:
    """Feast's fields of every hundredth entity, as the store has them."""
    keys = entity_keys(pa.table({"customer": np.arange(0, case.rows, 100)}), case.view).to_pylist()
    view = case.view.view
    if "://" not in online:
        table = sqlite_layout.table_of(PROJECT, view)
        query = (
            f"SELECT feature_name, value, event_ts FROM {table} WHERE entity_key = ? "
            "ORDER BY feature_name"
        )
        with contextlib.closing(sqlite3.connect(online)) as db:
            return [db.execute(query, (key,)).fetchall() for key in keys]
    fields = [redis_layout.feature_field(view, name) for name in FEATURES]
    fields.append(redis_layout.timestamp_field(view))
    asked = [command(b"HMGET", redis_layout.entity_hash(key, PROJECT), *fields) for key in keys]
    with contextlib.closing(Connection(online, timeout_seconds=60)) as connection:
        return connection.ask(asked, replies=len(asked))


def check(wanted: list[Any], found: list[Any], side: str, other: str) -> None:
    """Refuse to compare times of different work."""
    if wanted != found or None in (wanted[0], *wanted[0]):
        raise SystemExit(f"{side} and {other} differ: {found[0]} and {wanted[0]}")


def empty(online: str) -> None:
    """Forget everything that a store holds."""
    if "://" not in online:
        for suffix in ("", "-wal", "-shm"):
            Path(online + suffix).unlink(missing_ok=True)
        return
    with contextlib.closing(Connection(online, timeout_seconds=60)) as connection:
        connection.ask(command(b"FLUSHALL"), replies=1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast's progress bars and warnings are not the benchmark's."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
