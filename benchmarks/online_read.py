"""What an online read costs: Feast's ``get_online_features`` and ours, on Redis and on SQLite.

20 features over two views, of one entity and of 64 at once. Both sides read the same rows of the
same store: the Redis server is one process for both, the SQLite file one file. Feast's registry is
a local file, read beforehand and never again. Rounds of 20 calls alternate; each
side's figure is the median call of its best round, and every value of both sides is compared.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Figures, arguments, redis_server, show
from featurestore.online.reader import OnlineReader, open_online_reader
from featurestore.stores.open_store import open_store
from featurestore.stores.resp import Connection
from featurestore.stores.stored import StoredView, stored_view
from headrace import telemetry
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

PROJECT = "bench"
ENTITIES = 2_000
FEATURES = 10
MANY_VIEWS = 500
GOALS = {"redis_1": 20, "redis_64": 60, "sqlite_1": 6, "sqlite_64": 10}
NOW = datetime(2013, 6, 1, tzinfo=UTC)
TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Side:
    """One way to read."""

    read: Callable[[list[str]], Any]
    values: Callable[[Any], np.ndarray]
    """What was read, shape (features, rows)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    quick = arguments("online_read", argv).quick
    telemetry.turn_off()
    figures: Figures = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        for store, uri in (("redis", url), ("sqlite", str(Path(folder) / "online.db"))):
            settings = Settings(home=Path(folder), online_store=uri)
            write_views(settings, names=("first", "second"))
            with closing(open_online_reader(settings, plan_of("first", "second"))) as reader:
                sides = {"feast": feast_side(settings, Path(folder)), "ours": our_side(reader)}
                for entities in (1, 64):
                    seconds = compare(sides, entities, rounds=3 if quick else 15)
                    ratio = seconds["feast"] / seconds["ours"]
                    figures[f"{store}_{entities}"] = ratio
                    rows += table(store, entities, seconds, ratio)
        rows.append(("redis, a bare PING", f"{ping_seconds(url) * 1e6:,.0f} us", "the limit"))
        figures["views_500_time_over_1"] = ratio = many_views(url, rounds=3 if quick else 15)
    rows.append(("500 views registered, time over that of 1", f"{ratio:.2f}", "near 1"))
    show("online_read", rows, figures)


def ping_seconds(url: str) -> float:
    """The median of bare round trips to the server: what no read can be faster than."""
    with closing(Connection(url, timeout_seconds=1.0)) as connection:
        taken = []
        for _ in range(2000):
            begun = time.perf_counter()
            connection.ask(b"PING\r\n", replies=1)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def table(
    store: str, entities: int, seconds: dict[str, float], ratio: float
) -> list[tuple[str, str, str]]:
    """The lines of one measurement."""
    what, goal = f"{store}, {entities:>2} at once", GOALS[f"{store}_{entities}"]
    return [
        (f"{what}: Feast", f"{seconds['feast'] * 1e6:,.0f} us", ""),
        (f"{what}: ours", f"{seconds['ours'] * 1e6:,.0f} us", ""),
        (f"{what}: Feast's time over ours", f"{ratio:.1f}", f">= {goal}"),
    ]


def compare(sides: dict[str, Side], entities: int, *, rounds: int) -> dict[str, float]:
    """Seconds of the median call in each side's best round; both must give the same values."""
    random = np.random.default_rng(entities)
    batches = [[f"entity-{n}" for n in random.integers(0, ENTITIES, entities)] for _ in range(20)]
    for batch in batches:
        values = [side.values(side.read(batch)) for side in sides.values()]
        if not np.array_equal(values[0], values[1]):
            raise SystemExit(f"Feast and ours differ for {batch}")
    medians: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            medians[name].append(statistics.median(seconds_of_calls(side, batches)))
    return {name: min(some) for name, some in medians.items()}


def seconds_of_calls(side: Side, batches: Sequence[list[str]]) -> list[float]:
    """The time of each call."""
    taken = []
    for batch in batches:
        begun = time.perf_counter()
        side.read(batch)
        taken.append(time.perf_counter() - begun)
    return taken


def many_views(url: str, *, rounds: int) -> float:
    """The time of a read with 500 views in the store, over that with one view."""
    parts = url.rpartition("/")
    alone, among = f"{parts[0]}/1", f"{parts[0]}/2"
    write_views(Settings(online_store=alone), names=("first",), entities=20)
    others = tuple(f"view_{n}" for n in range(MANY_VIEWS - 1))
    write_views(Settings(online_store=among), names=("first", *others), entities=20)
    with (
        closing(OnlineReader(alone, plan_of("first"))) as of_one,
        closing(OnlineReader(among, plan_of("first"))) as of_many,
    ):
        sides = {"one": our_side(of_one), "many": our_side(of_many)}
        batches = [[f"entity-{n}"] for n in range(20)]
        medians: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds * 10):
            for name, side in sides.items():
                medians[name].append(statistics.median(seconds_of_calls(side, batches)))
    return min(medians["many"]) / min(medians["one"])


def view_of(name: str) -> ViewRead:
    """A view of ten numbers of an entity."""
    return ViewRead(
        view=name,
        table=name,
        join_keys=(JoinKey(name="entity"),),
        event_timestamp="event_timestamp",
        created_timestamp="created_timestamp",
        ttl_seconds=86_400.0,
        features=tuple(FeatureRead(name=f"{name}_f{n}", dtype="DOUBLE") for n in range(FEATURES)),
    )


def plan_of(*names: str) -> FeaturePlan:
    """A plan that reads views."""
    return FeaturePlan(
        project=PROJECT,
        feature_service="both",
        definitions_sha256="",
        event_timestamp="at",
        views=tuple(view_of(name) for name in names),
        request=(),
        inputs_from_request=(),
        transforms=(),
    )


def write_views(settings: Settings, *, names: Sequence[str], entities: int = ENTITIES) -> None:
    """Write random rows of each view."""
    random = np.random.default_rng(0)
    with closing(open_store(settings, PROJECT)) as store:
        for name in names:
            stored = StoredView(view=stored_view(view_of(name)), until_us=0)
            store.put_view(stored)
            seconds = random.integers(0, 3600, entities).tolist()
            times = pa.array([NOW - timedelta(seconds=s) for s in seconds], TIMESTAMP)
            columns = {f"{name}_f{n}": random.normal(size=entities) for n in range(FEATURES)}
            keys = {"entity": [f"entity-{n}" for n in range(entities)]}
            stamps = {"event_timestamp": times, "created_timestamp": times}
            store.write(stored, pa.table({**keys, **stamps, **columns}))


def our_side(reader: OnlineReader) -> Side:
    """Reading as the server does, at the moment of the request."""
    at = {n: np.full(n, np.datetime64(NOW.replace(tzinfo=None), "us")) for n in (1, 64)}
    return Side(
        lambda batch: reader.read({"entity": batch}, at[len(batch)]),
        lambda rows: np.array(list(rows.columns.values())),
    )


def feast_side(settings: Settings, folder: Path) -> Side:
    """Reading as Feast's documentation says."""
    store, names = feast_store(settings, folder)

    def read(batch: list[str]) -> dict[str, list[Any]]:
        rows = [{"entity": entity} for entity in batch]
        found: dict[str, list[Any]] = store.get_online_features(names, rows).to_dict()
        return found

    def values(found: dict[str, list[Any]]) -> np.ndarray:
        views = ("first", "second")
        columns = [f"{view}_f{n}" for view in views for n in range(FEATURES)]
        return np.array([found[column] for column in columns])

    return Side(read, values)


def feast_store(settings: Settings, folder: Path) -> tuple[Any, list[str]]:
    """A Feast store over the same rows, and the references of all features."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    store = FeatureStore(config=RepoConfig(**feast_config(settings, folder)))
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.STRING)
    views = []
    for name in ("first", "second"):
        features = [f"{name}_f{n}" for n in range(FEATURES)]
        schema = [Field(name="entity", dtype=String)]
        schema += [Field(name=feature, dtype=Float64) for feature in features]
        source = FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp")
        views.append(
            FeatureView(
                name=name, entities=[entity], schema=schema, source=source, ttl=timedelta(1)
            )
        )
    store.registry.apply_entity(entity, PROJECT, commit=False)
    for view in views:
        store.registry.apply_feature_view(view, PROJECT, commit=False)
    store.registry.commit()
    return store, [f"{v.name}:{field.name}" for v in views for field in v.features]


def feast_config(settings: Settings, folder: Path) -> dict[str, Any]:
    """What Feast's ``feature_store.yaml`` says for the same store, its registry a local file."""
    online: dict[str, Any] = {"type": "sqlite", "path": settings.online_uri}
    if "://" in settings.online_uri:
        place, _, database = settings.online_uri.removeprefix("redis://").rpartition("/")
        online = {"type": "redis", "connection_string": f"{place},db={database}"}
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {"path": str(folder / f"{online['type']}.pb"), "cache_ttl_seconds": 0},
        "online_store": online,
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }


if __name__ == "__main__":
    main()
