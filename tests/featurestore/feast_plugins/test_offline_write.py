"""Feast's own push and write, through real Feast, on both online stores."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from featurestore.offline.tables import read_table
from featurestore.push.incoming import view_schema
from featurestore.push.push import view_of
from featurestore.stores.open_store import open_store
from headrace.settings import Settings

START = datetime(2013, 1, 1, tzinfo=UTC)

MORE = """
from feast import PushSource
from feast.types import Array, Bool, Float32, Float64, Int64, String

airport_events = PushSource(name="airport_events", batch_source=source("states"))
states = FeatureView(
    name="states",
    entities=[origin],
    ttl=timedelta(0),
    schema=[
        Field(name="x", dtype=Float64),
        Field(name="small", dtype=Float32),
        Field(name="count", dtype=Int64),
        Field(name="open", dtype=Bool),
        Field(name="name", dtype=String),
        Field(name="tags", dtype=Array(String)),
    ],
    source=airport_events,
)
"""
FEATURES = [f"states:{name}" for name in ("x", "small", "count", "open", "name", "tags")]


@pytest.fixture(params=["sqlite", "redis"])
def settings(request, tmp_path):
    if request.param == "sqlite":
        return Settings(home=tmp_path / "home")
    return Settings(home=tmp_path / "home", online_store=request.getfixturevalue("redis_url"))


@pytest.fixture
def stores(settings, tiny_repository, put_table):
    """Feast's store with Headrace's online plug-in, and with Feast's own class."""
    from feast import FeatureStore, RepoConfig

    from featurestore.catalog.catalog import load_catalog

    catalog = load_catalog(settings, repository=tiny_repository(more=MORE))
    empty = view_schema(view_of(catalog, "states")).empty_table()
    put_table(settings.uri("offline"), "states", empty)

    def store(kind):
        from featurestore.feast_plugins.configuration import connection_string
        from featurestore.feast_plugins.online_store import REDIS, SQLITE

        if "://" in settings.online_uri:
            words = connection_string(settings.online_uri)
            online = {"type": REDIS if kind == "ours" else "redis", "connection_string": words}
        else:
            path = str(settings.online_path)
            online = {"type": SQLITE if kind == "ours" else "sqlite", "path": path}
        return FeatureStore(
            config=RepoConfig(
                project="tiny",
                provider="local",
                registry=str(settings.home / "feature_registry.db"),
                offline_store="featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
                online_store=online,
                entity_key_serialization_version=3,
            )
        )

    return store("ours"), store("feast")


def frame(*rows):
    """(origin, event minute, created minute, x) a row."""
    import pandas as pd

    return pd.DataFrame(
        {
            "origin": [row[0] for row in rows],
            "event_timestamp": [START + timedelta(minutes=row[1]) for row in rows],
            "created_timestamp": [START + timedelta(minutes=row[2]) for row in rows],
            "x": [row[3] for row in rows],
            "small": [0.1] * len(rows),
            "count": [2**53 + 1] * len(rows),
            "open": [True] * len(rows),
            "name": ["John F. Kennedy"] * len(rows),
            "tags": [["a", "b"]] * len(rows),
        }
    )


def seen(store, origin="JFK"):
    """What stock Feast reads of an airport."""
    found = store.get_online_features(features=FEATURES, entity_rows=[{"origin": origin}])
    return {name: values[0] for name, values in found.to_dict().items()}


def test_a_late_push_does_not_overwrite_and_an_equal_one_created_later_does(stores, settings):
    from feast.data_source import PushMode

    ours, feast = stores
    ours.push("airport_events", frame(("JFK", 60, 60, 6.0), ("JFK", 30, 30, 3.0)))
    assert seen(feast)["x"] == 6
    ours.push("airport_events", frame(("JFK", 50, 70, 5.0)))
    assert seen(feast)["x"] == 6
    ours.write_to_online_store("states", frame(("JFK", 60, 59, 5.9)))
    assert seen(feast)["x"] == 6
    asyncio.run(ours.push_async("airport_events", frame(("JFK", 60, 61, 6.1))))
    both = frame(("LGA", 60, 60, 7.0))
    ours.push("airport_events", both, to=PushMode.ONLINE_AND_OFFLINE)
    found = seen(feast)
    assert found == {
        "origin": "JFK",
        "x": 6.1,
        "small": pytest.approx(0.1),
        "count": 2**53 + 1,
        "open": True,
        "name": "John F. Kennedy",
        "tags": ["a", "b"],
    }
    assert seen(ours) == found
    assert seen(ours, "LGA")["x"] == 7
    assert read_table(settings.uri("offline"), "states")["x"].to_pylist() == [7]
    store = open_store(settings, "tiny")
    stored = store.views()["states"]
    store.close()
    assert stored.until_us is None
    assert [feature.name for feature in stored.view.features] == [f[7:] for f in FEATURES]


def test_nulls_and_times_without_a_zone_are_pushed_as_feast_means_them(stores, settings):
    from feast.data_source import PushMode

    ours, feast = stores
    rows = frame(("JFK", 60, 60, None), ("LGA", 60, 60, 1.0))
    for name in ("event_timestamp", "created_timestamp"):
        rows[name] = rows[name].dt.tz_localize(None)
    rows["name"] = None
    ours.push("airport_events", rows.iloc[1:], to=PushMode.OFFLINE)
    ours.push("airport_events", rows)
    assert (seen(feast)["x"], seen(feast)["name"], seen(feast)["count"]) == (None, None, 2**53 + 1)
    (pushed,) = read_table(settings.uri("offline"), "states")["event_timestamp"].to_pylist()
    assert pushed == START + timedelta(minutes=60)


def test_what_the_write_does_not_have_is_refused(redis_url):
    from feast.infra.online_stores.redis import RedisType

    from featurestore.errors import DefinitionsRefused
    from featurestore.feast_plugins.online_store import HeadraceRedisOnlineStoreConfig
    from featurestore.feast_plugins.online_store import redis_url as url_of

    config = HeadraceRedisOnlineStoreConfig(
        connection_string='cache:6380,db=2,username="ann",password="s:e/cret",ssl=true'
    )
    assert url_of(config) == "rediss://ann:s%3Ae%2Fcret@cache:6380/2"
    for unknown in ({"redis_type": RedisType.redis_cluster}, {"key_ttl_seconds": 5}):
        with pytest.raises(DefinitionsRefused, match="use Feast's own type: redis"):
            url_of(HeadraceRedisOnlineStoreConfig(**unknown))


def test_feasts_own_materialize_writes_by_the_same_rule(stores):
    from feast.data_source import PushMode

    ours, feast = stores
    ours.push("airport_events", frame(("JFK", 60, 60, 6.0), ("LGA", 10, 10, 1.0)))
    older = frame(("JFK", 50, 50, 5.0), ("LGA", 20, 20, 2.0))
    ours.push("airport_events", older, to=PushMode.OFFLINE)
    ends = START - timedelta(days=1), START + timedelta(days=1)
    ours.materialize(*ends, feature_views=["states"])
    assert (seen(feast)["x"], seen(feast, "LGA")["x"]) == (6, 2)
