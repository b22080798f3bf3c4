from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from featurestore.catalog.catalog import load_catalog
from featurestore.errors import DefinitionsRefused

START = datetime(2013, 1, 1, tzinfo=UTC)
TIMESTAMP = pa.timestamp("us", tz="UTC")
MORE = """
import pandas as pd
from feast import RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, String, UnixTimestamp

kinds = FeatureView(
    name="kinds",
    entities=[origin],
    ttl=timedelta(hours=1),
    schema=[
        Field(name="name", dtype=String),
        Field(name="codes", dtype=Array(Int64)),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="big", dtype=Int64),
    ],
    source=source("kinds"),
)
asked = RequestSource(name="asked", schema=[Field(name="extra", dtype=Float64)])


@on_demand_feature_view(
    sources=[hourly, asked], schema=[Field(name="more", dtype=Float64)], mode="pandas"
)
def sums(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"more": inputs["x"] + inputs["extra"]})
"""


def gates_table():
    at = pa.array([START] * 2, TIMESTAMP)
    return pa.table(
        {
            "origin": ["JFK", "JFK"],
            "gate": pa.array([1, 2], pa.int64()),
            "event_timestamp": at,
            "created_timestamp": at,
            "passengers": pa.array([10, 20], pa.int64()),
            "open": [True, None],
            "wait": pa.array([1.5, None], pa.float32()),
        }
    )


def kinds_table():
    at = pa.array([START], TIMESTAMP)
    codes, name = pa.array([[4, 13]], pa.list_(pa.int64())), pa.array(["Kennedy"])
    times = {"event_timestamp": at, "created_timestamp": at}
    big = pa.array([2**60 + 1], pa.int64())
    return pa.table(
        {"origin": ["JFK"], **times, "name": name, "codes": codes, "seen": at, "big": big}
    )


@pytest.fixture
def feast_store(tiny_repository, at_home, put_table, values):
    from feast import FeatureStore, RepoConfig

    load_catalog(at_home, repository=tiny_repository(more=MORE))
    offline = at_home.uri("offline")
    put_table(offline, "hourly", values(("JFK", 0, 0, 1.0), ("JFK", 10, 30, 2.0)))
    put_table(offline, "gates", gates_table())
    put_table(offline, "kinds", kinds_table())
    return FeatureStore(
        config=RepoConfig(
            project="tiny",
            provider="local",
            registry=str(at_home.home / "feature_registry.db"),
            offline_store="featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
            online_store={"type": "sqlite", "path": str(at_home.online_path)},
            entity_key_serialization_version=3,
        )
    )


def asked_frame(*rows, unit="us"):
    import pandas as pd

    origins, minutes = zip(*rows, strict=True)
    moments = [START + timedelta(minutes=m) for m in minutes]
    return pd.DataFrame(
        {"origin": origins, "event_timestamp": pd.to_datetime(moments).as_unit(unit)}
    )


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_feast_users_get_the_values_that_headrace_trains_on(feast_store, unit):
    rows = asked_frame(("JFK", 20), ("JFK", 30), ("LGA", 30), ("JFK", 20), unit=unit)
    found = feast_store.get_historical_features(
        entity_df=rows, features=["hourly:x"], full_feature_names=True
    ).to_df()
    assert found["origin"].tolist() == ["JFK", "JFK", "LGA", "JFK"]
    np.testing.assert_array_equal(found["hourly__x"], [1, 2, np.nan, 1])


def test_a_window_of_a_table_can_be_pulled(feast_store):
    source = feast_store.get_feature_view("hourly").batch_source
    job = feast_store._get_provider().offline_store.pull_all_from_table_or_query(
        feast_store.config, source, ["origin"], ["x"], "event_timestamp",
        start_date=START, end_date=START + timedelta(minutes=10),
    )  # fmt: skip
    assert job.to_arrow()["x"].to_pylist() == [1]


def test_moments_without_a_zone_are_refused(feast_store):
    from featurestore.feast_plugins.offline_store import _with_utc

    rows = pa.table({"event_timestamp": pa.array([START.replace(tzinfo=None)])})
    with pytest.raises(DefinitionsRefused, match="event_timestamp with a time zone"):
        _with_utc(rows)


def test_the_latest_row_of_each_entity_of_a_window_can_be_pulled(feast_store):
    source = feast_store.get_feature_view("hourly").batch_source
    job = feast_store._get_provider().offline_store.pull_latest_from_table_or_query(
        feast_store.config, source, ["origin"], ["x"], "event_timestamp", "created_timestamp",
        START, START + timedelta(hours=1),
    )  # fmt: skip
    assert job.to_arrow()["x"].to_pylist() == [2]


def test_feasts_own_materialize_reads_the_store(feast_store):
    feast_store.materialize(START - timedelta(days=1), START + timedelta(hours=1))
    online = feast_store.get_online_features(
        features=["hourly:x", "gates:passengers"], entity_rows=[{"origin": "JFK", "gate": 1}]
    ).to_dict()
    assert online["x"] == [2.0]
    assert online["passengers"] == [10]


def test_views_of_several_keys_join_to_every_row_in_its_order(feast_store):
    rows = asked_frame(("JFK", 30), ("LGA", 1), ("JFK", 30), ("JFK", 1))
    rows.index = [7, 7, 3, 1]
    rows["origin"] = rows["origin"].astype("category")
    rows["gate"], rows["note"] = [1, 1, 1, 2], ["a", "b", "c", "d"]
    service = feast_store.get_feature_service("both")
    found = feast_store.get_historical_features(entity_df=rows, features=service).to_df()
    assert found["note"].tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found["x"], [2, np.nan, 2, 1])
    np.testing.assert_array_equal(found["passengers"], [10, np.nan, 10, 20])
    np.testing.assert_array_equal(found["wait"], [1.5, np.nan, 1.5, np.nan])


def test_strings_lists_and_times_are_joined_too(feast_store):
    found = feast_store.get_historical_features(
        entity_df=asked_frame(("JFK", 5), ("LGA", 5)),
        features=["kinds:name", "kinds:codes", "kinds:seen", "kinds:big"],
    ).to_arrow()
    assert found["name"].to_pylist() == ["Kennedy", None]
    assert found["codes"].to_pylist() == [[4, 13], None]
    assert found["seen"].to_pylist() == [START, None]
    assert found["big"].to_pylist() == [2**60 + 1, None]


def test_feast_computes_its_on_demand_views_on_top(feast_store):
    rows = asked_frame(("JFK", 30), ("JFK", 1)).assign(extra=[10.0, 20.0])
    found = feast_store.get_historical_features(
        entity_df=rows, features=["hourly:x", "sums:more"], full_feature_names=True
    ).to_df()
    assert found["sums__more"].tolist() == [12, 21]


def test_a_view_can_be_keyed_by_other_columns_under_another_name(feast_store):
    view = feast_store.get_feature_view("hourly").with_name("there").with_join_key_map(
        {"origin": "dest"}
    )  # fmt: skip
    store = feast_store._get_provider().offline_store
    rows = asked_frame(("LGA", 30)).assign(dest=["JFK"])
    job = store.get_historical_features(
        feast_store.config, [view], ["there:x"], rows, feast_store.registry, "tiny", True
    )
    assert job.to_df()["there__x"].tolist() == [2]


@pytest.mark.filterwarnings("ignore:.*an experimental feature:RuntimeWarning")
def test_a_result_can_be_kept_as_a_saved_dataset(feast_store, tmp_path):
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    place = SavedDatasetFileStorage(path=str(tmp_path / "kept.parquet"))
    job = feast_store.get_historical_features(
        entity_df=asked_frame(("JFK", 20), unit="ns"), features=["hourly:x"]
    )
    kept = feast_store.create_saved_dataset(from_=job, name="kept", storage=place)
    assert kept.to_df()["x"].tolist() == [1]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(place)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: "SELECT 1", "must be a pandas DataFrame .* not str; for SQL, pass"),
        (lambda _: None, "must be a pandas DataFrame"),
        (lambda rows: rows.drop(columns="origin"), "hourly needs its columns origin"),
        (lambda rows: rows.assign(x=1.0), "its column x is also a feature"),
        (lambda rows: rows.assign(origin=["JFK", 3]), "entity_df"),
        (lambda rows: rows.drop(columns="event_timestamp"), "a column event_timestamp with a time"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused_with_what_to_pass(feast_store, change, told):
    store = feast_store._get_provider().offline_store
    rows = change(asked_frame(("JFK", 20), ("JFK", 30)))
    with pytest.raises(DefinitionsRefused, match=told):
        store.get_historical_features(
            feast_store.config,
            [feast_store.get_feature_view("hourly")],
            ["hourly:x"],
            rows,
            feast_store.registry,
            "tiny",
        )
