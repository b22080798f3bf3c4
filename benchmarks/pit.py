"""The point-in-time join of a year of flights, against Polars and both of Feast's local stores.

Every flight with hourly weather and two trailing-delay views. Polars and ours go from Arrow tables
in memory to columns in the order of the rows; the inputs are in order of time, so neither has to
sort by it. Polars knows no time of writing, so ours does more. Feast's stores are called as Feast's
users call them, and so is ours: from a DataFrame to an Arrow table, sources in Parquet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Figures, show
from featurestore.join.joining import join_tables
from headrace.plan import FeatureRead, JoinKey, ViewRead

TIMES = 10
DEFAULT_STORE_SECONDS = 20
FLIGHTS, MOMENT = "flight_schedule", "scheduled_departure"


def view(name: str, keys: Sequence[str], ttl: timedelta, features: Sequence[str]) -> ViewRead:
    """A view of the sample project, some of its features."""
    return ViewRead(
        view=name,
        table=name,
        join_keys=tuple(JoinKey(name=key) for key in keys),
        event_timestamp="event_timestamp",
        created_timestamp="created_timestamp",
        ttl_seconds=ttl.total_seconds(),
        features=tuple(FeatureRead(name=feature, dtype="DOUBLE") for feature in features),
    )


VIEWS = (
    view("weather", ["origin"], timedelta(hours=6), ["temperature_f", "wind_speed_mph"]),
    view(
        "carrier_origin_delays",
        ["carrier", "origin"],
        timedelta(days=3),
        ["arrival_delay_mean_24h_minutes", "arrivals_late_share_24h"],
    ),
    view(
        "destination_delays",
        ["dest"],
        timedelta(days=3),
        ["arrival_delay_mean_6h_minutes", "arrivals_late_share_6h"],
    ),
)
COLUMNS = [column for read in VIEWS for column in read.columns]
OUT_OF_CORE = """
import json, sys, time
from benchmarks.pit import MOMENT, VIEWS
from featurestore.join.out_of_core import write_historical_features
rows, offline, out = sys.argv[1:]
begun = time.perf_counter()
made = write_historical_features(rows, VIEWS, offline, out, timestamp=MOMENT)
seconds = time.perf_counter() - begun
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status["VmHWM"].split()[0]) / 1024, made.rows_out]))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pit")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows: within 50 s")
    quick = parser.parse_args(argv).quick
    from featurestore.flights.sources import write_tables

    with tempfile.TemporaryDirectory() as folder:
        offline = Path(folder) / "offline"
        write_tables(str(offline))
        measure(Path(folder), offline, quick=quick)


def measure(folder: Path, offline: Path, *, quick: bool) -> None:
    """Run every measurement and show the figures."""
    rounds = 4 if quick else 15
    keys = ["origin", "carrier", "dest", MOMENT]
    rows = pq.read_table(offline / f"{FLIGHTS}.parquet", columns=keys)
    tables = [(read_values(offline, read), read) for read in VIEWS]
    check_equal(rows, tables)
    ours, polars = interleaved(
        [lambda: join_tables(rows, tables, timestamp=MOMENT), lambda: polars_join(rows, tables)],
        rounds,
    )
    many = repeated(rows, TIMES)
    many_rows = many.num_rows
    ours_many = best(lambda: join_tables(many, tables, timestamp=MOMENT), 1 if quick else 3)
    pq.write_table(many, folder / "many.parquet", row_group_size=1 << 17)
    out_seconds, peak_mb = out_of_core(folder, offline, many_rows)

    asked = rows.slice(0, 20_000) if quick else rows
    feast = FeastStores(folder, offline)
    feast_ours = best(lambda: feast.join("ours", asked), 1 if quick else 3)
    feast_duckdb = best(lambda: feast.join("duckdb", asked), 1)
    check_feast(feast.join("ours", asked), feast.join("duckdb", asked.slice(0, 2_000)))
    default_rows, default_seconds = as_many_as(feast, rows, 4 if quick else DEFAULT_STORE_SECONDS)

    figures: Figures = {
        "time_over_polars": ours / polars,
        "feast_duckdb_time_over_ours": feast_duckdb / feast_ours,
        "feast_default_time_per_row_over_ours": (default_seconds / default_rows)
        / (feast_ours / asked.num_rows),
        "time_10x_over_1x": ours_many / ours,
        "peak_mb_10x": peak_mb,
    }
    show(
        "pit",
        [
            line("ours", rows.num_rows, ours, "<= 1.5 x Polars"),
            line("Polars join_asof, by event time alone", rows.num_rows, polars, ""),
            line("ours, ten times the rows", many_rows, ours_many, "<= 12 x ours"),
            line("ours, Parquet to Parquet", many_rows, out_seconds, f"{peak_mb:.0f} <= 1500 MB"),
            line("Feast with our store", asked.num_rows, feast_ours, ""),
            line("Feast with duckdb", asked.num_rows, feast_duckdb, ">= 30 x with ours"),
            line("Feast by default (dask)", default_rows, default_seconds, ">= 10,000 x a row"),
        ],
        figures,
    )


def line(what: str, rows: int, seconds: float, goal: str) -> tuple[str, str, str]:
    """A line of the table."""
    return what, f"{seconds:8.3f} s for {rows:>9,} rows: {rows / seconds:>11,.0f} a second", goal


def read_values(offline: Path, read: ViewRead) -> pa.Table:
    """A view's whole table, the columns of the join."""
    columns = [*read.key_names, *read.timestamps, *(feature.name for feature in read.features)]
    return pq.read_table(offline / f"{read.table}.parquet", columns=columns)


def repeated(rows: pa.Table, times: int) -> pa.Table:
    """The rows ``times`` over, each time some minutes later, in order of time."""
    moments = rows[MOMENT].cast(pa.int64()).to_numpy()
    later = np.concatenate([moments + n * 7 * 60_000_000 for n in range(times)])
    order = np.argsort(later, kind="stable")
    many = rows.take(pa.array(order % len(moments)))
    position = many.schema.get_field_index(MOMENT)
    return many.set_column(position, MOMENT, pa.array(later[order]).cast(rows[MOMENT].type))


def polars_join(rows: pa.Table, tables: Sequence[tuple[pa.Table, ViewRead]]) -> pa.Table:
    """The best that Polars does: rows and values are in order of time, as it needs them."""
    import polars as pl

    joined = pl.from_arrow(rows)
    assert isinstance(joined, pl.DataFrame)
    for values, read in tables:
        right = pl.from_arrow(values)
        assert isinstance(right, pl.DataFrame)
        names = {feature.name: f"{read.view}__{feature.name}" for feature in read.features}
        joined = joined.join_asof(
            right.drop("created_timestamp").rename(names),
            left_on=MOMENT,
            right_on=read.event_timestamp,
            by=list(read.key_names),
            tolerance=timedelta(seconds=read.ttl_seconds or 0),
            coalesce=False,
            check_sortedness=False,
        ).drop(read.event_timestamp)
    return joined.select(COLUMNS).to_arrow()


def check_equal(rows: pa.Table, tables: Sequence[tuple[pa.Table, ViewRead]]) -> None:
    """Ours by event time alone, and Polars, give the same values."""
    by_event = [
        (values, read.model_copy(update={"created_timestamp": None})) for values, read in tables
    ]
    theirs = polars_join(rows, tables)
    for joined in join_tables(rows, by_event, timestamp=MOMENT):
        for name, column in joined.columns.items():
            np.testing.assert_array_equal(column, theirs[name].to_numpy(), err_msg=name)


def out_of_core(folder: Path, offline: Path, rows: int) -> tuple[float, float]:
    """Seconds and peak memory in MB of a process that joins from Parquet to Parquet."""
    arguments = [folder / "many.parquet", offline, folder / "joined.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_CORE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes, made = json.loads(done.stdout.splitlines()[-1])
    assert made == rows, f"{rows} rows went in and {made} came out"
    return seconds, megabytes


KINDS = {
    "ours": "featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
    "duckdb": "duckdb",
    "default": "dask",
}
"""Feast's offline stores by the names used here."""


class FeastStores:
    """The same definitions in three Feast stores that differ in their offline store alone."""

    def __init__(self, folder: Path, offline: Path) -> None:
        warnings.simplefilter("ignore")  # Feast and ibis warn about their own dependencies
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
        from feast.repo_config import RepoConfig
        from feast.types import Float64

        entities = {
            key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
            for key in dict.fromkeys(key for read in VIEWS for key in read.key_names)
        }
        views = [
            FeatureView(
                name=read.view,
                entities=[entities[key] for key in read.key_names],
                ttl=timedelta(seconds=read.ttl_seconds or 0),
                schema=[Field(name=feature.name, dtype=Float64) for feature in read.features],
                source=FileSource(
                    name=read.table,
                    path=str(offline / f"{read.table}.parquet"),
                    timestamp_field=read.event_timestamp,
                    created_timestamp_column=read.created_timestamp,
                ),
            )
            for read in VIEWS
        ]
        self._stores = {}
        for name, kind in KINDS.items():
            config = RepoConfig(
                project="pit",
                provider="local",
                registry=str(folder / f"{name}.db"),
                offline_store=kind if name == "ours" else {"type": kind},
                online_store={"type": "sqlite", "path": str(folder / f"{name}-online.db")},
                entity_key_serialization_version=3,
            )
            self._stores[name] = FeatureStore(config=config)
            self._stores[name].apply([*entities.values(), *views])

    def join(self, kind: str, rows: pa.Table) -> pa.Table:
        """Historical features of rows, as Feast's users ask for them."""
        frame = rows.rename_columns(["origin", "carrier", "dest", "event_timestamp"]).to_pandas()
        frame["row"] = np.arange(len(frame))
        features = [f"{read.view}:{feature.name}" for read in VIEWS for feature in read.features]
        job: Any = self._stores[kind].get_historical_features(
            entity_df=frame,
            features=features,
            full_feature_names=True,
            filter_by_created_timestamp=True,
        )
        table: pa.Table = job.to_arrow()
        return table


def check_feast(ours: pa.Table, theirs: pa.Table) -> None:
    """Feast gives the same values with either store, whose own order of rows is another."""
    few = theirs.sort_by("row")
    for name in COLUMNS:
        have = ours[name].to_numpy()[: few.num_rows]
        np.testing.assert_array_equal(have, few[name].to_numpy(), err_msg=name)


def as_many_as(feast: FeastStores, rows: pa.Table, seconds: float) -> tuple[int, float]:
    """How many rows Feast's default store joins in about so many seconds, and in how many."""
    count, taken = 64, best(lambda: feast.join("default", rows.slice(0, 64)), 1)
    while taken < seconds / 2:
        count = int(count * min(4, 0.9 * seconds / taken))
        taken = best(lambda n=count: feast.join("default", rows.slice(0, n)), 1)
    return count, taken


def best(work: Callable[[], object], rounds: int) -> float:
    """The shortest of some times, in seconds."""
    return interleaved([work], rounds)[0]


def interleaved(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The shortest time of each, taken in turns: what disturbs one disturbs all."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for taken, work in zip(times, works, strict=True):
            begun = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begun)
    return [min(taken) for taken in times]


if __name__ == "__main__":
    main()
