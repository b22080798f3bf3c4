from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from featurestore.catalog import load_catalog
from featurestore.errors import DefinitionsRefused

START = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def feast_store(tiny_repository, at_home, put_table, values):
    from feast import FeatureStore, RepoConfig

    load_catalog(at_home, repository=tiny_repository())
    rows = values(("JFK", 0, 0, 1.0), ("JFK", 10, 30, 2.0))
    put_table(at_home.uri("offline"), "hourly", rows)
    return FeatureStore(
        config=RepoConfig(
            project="tiny",
            provider="local",
            registry=str(at_home.home / "feature_registry.db"),
            offline_store="featurestore.feast_plugin.HeadraceOfflineStore",
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
    from featurestore.feast_plugin import _with_utc

    rows = pa.table({"event_timestamp": pa.array([START.replace(tzinfo=None)])})
    with pytest.raises(DefinitionsRefused, match="event_timestamp with a time zone"):
        _with_utc(rows)


def test_pulling_the_latest_values_is_refused_with_the_command_to_run(feast_store):
    store = feast_store._get_provider().offline_store
    with pytest.raises(DefinitionsRefused, match=r"run python -m flows\.materialize"):
        store.pull_latest_from_table_or_query(feast_store.config)
