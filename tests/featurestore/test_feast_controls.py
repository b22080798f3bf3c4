"""Feast's default join on small tables, beside ours: the tests above must be able to fail.

Feast's store takes seconds a call, so all rows are asked for at once.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = 60


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both stores answer: a frame by store, with the columns case, note and x."""
    import warnings

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.repo_config import RepoConfig
    from feast.types import Float64

    folder = tmp_path_factory.mktemp("controls")
    (folder / "offline").mkdir()
    cases = [  # key, event minute, created minute, x
        ("twice", 0, 0, 1.0),
        ("expired", 0, 0, 2.0),
        ("future", 300, 300, 3.0),
        ("late", 100, 100, 4.0),
        ("late", 110, 500, 5.0),
        ("fine", 110, 110, 6.0),
    ]
    names, events, created, xs = zip(*cases, strict=True)
    values = pd.DataFrame({"case": names, "x": xs})
    for column, minutes in (("event_timestamp", events), ("created_timestamp", created)):
        moments = [START + timedelta(minutes=m) for m in minutes]
        values[column] = pd.to_datetime(moments).as_unit("us")
    values.to_parquet(folder / "offline" / "cases.parquet")
    asked = [("twice", 50), ("twice", 50), *((name, 120) for name in ("expired", "future"))]
    asked += [("late", 120), ("fine", 120)]
    rows = pd.DataFrame({"case": [name for name, _ in asked], "note": range(len(asked))})
    moments = pd.to_datetime([START + timedelta(minutes=m) for _, m in asked]).as_unit("us")
    rows["event_timestamp"] = moments.tz_convert("America/New_York")
    case = Entity(name="case", join_keys=["case"], value_type=ValueType.STRING)
    view = FeatureView(
        name="cases",
        entities=[case],
        ttl=timedelta(minutes=HOUR),
        schema=[Field(name="x", dtype=Float64)],
        source=FileSource(
            name="cases",
            path=str(folder / "offline" / "cases.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    answers = {}
    for name, offline in (
        ("feast", {"type": "dask"}),
        ("ours", "featurestore.feast_plugins.offline_store.HeadraceOfflineStore"),
    ):
        config = RepoConfig(
            project="controls",
            provider="local",
            registry=str(folder / f"{name}.db"),
            offline_store=offline,
            online_store={"type": "sqlite", "path": str(folder / f"{name}-online.db")},
            entity_key_serialization_version=3,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Feast about its own dependencies
            store = FeatureStore(config=config)
            store.apply([case, view])
            job = store.get_historical_features(entity_df=rows, features=["cases:x"])
            answers[name] = job.to_df()
    return answers


def values_of(frame, case):
    return frame[frame["case"] == case]["x"].tolist()


def test_every_row_comes_back_in_its_order(found):
    assert found["ours"]["note"].tolist() == list(range(6))
    np.testing.assert_array_equal(found["ours"]["x"], [1, 1, np.nan, np.nan, 4, 6])
    assert len(found["feast"]) < 6


def test_rows_that_share_key_and_time_are_kept_where_feast_collapses_them(found):
    assert values_of(found["ours"], "twice") == [1, 1]
    assert values_of(found["feast"], "twice") == [1]


@pytest.mark.parametrize("case", ["expired", "future"])
def test_a_row_without_a_usable_value_is_kept_where_feast_drops_it(found, case):
    assert np.isnan(values_of(found["ours"], case)).tolist() == [True]
    assert values_of(found["feast"], case) == []


def test_a_value_written_later_is_not_served_where_feast_serves_it(found):
    assert values_of(found["ours"], "late") == [4]
    assert values_of(found["feast"], "late") == [5]


def test_where_nothing_is_amiss_both_agree(found):
    assert values_of(found["ours"], "fine") == values_of(found["feast"], "fine") == [6]
