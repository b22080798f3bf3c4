"""A store that only Feast knows, here Feast's SQLite store as Feast itself wrote it."""

import warnings
from functools import partial

import numpy as np
import pytest

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.feast_plugins.compile import feast_store
from featurestore.feast_plugins.reader import FeastSource
from featurestore.online.reader import OnlineReader, ReaderOptions, ReadStatus
from headrace.plan import FeaturePlan, FeatureRead, JoinKey

START = np.datetime64("2013-01-01T00:00", "us")
GATES = tuple(
    FeatureRead(name=n, dtype=t)
    for n, t in (("wait", "FLOAT"), ("passengers", "INT64"), ("open", "BOOL"))
)


def at(*minutes):
    return START + (np.array(minutes) * 60_000_000).astype("timedelta64[us]")


@pytest.fixture
def world(tiny_repository, at_home, tmp_path, put_table, values):
    """Settings whose store Feast alone can read, a repository, and Feast's store."""
    yaml = (
        "project: tiny\nprovider: local\nentity_key_serialization_version: 3\n"
        "offline_store:\n  type: featurestore.feast_plugins.offline_store.HeadraceOfflineStore\n"
        f"online_store:\n  type: sqlite\n  path: {tmp_path / 'feasts.db'}\n"
    )
    settings = at_home.model_copy(update={"online_store": "feast"})
    package = tiny_repository(yaml=yaml)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return settings, package, feast_store(settings, repository=package)


@pytest.fixture
def open_reader(world, read):
    settings, package, _ = world

    def make(*views, **options):
        plan = FeaturePlan(
            project="tiny", feature_service="s", definitions_sha256="", event_timestamp="at",
            views=views or (read(),), request=(), inputs_from_request=(), transforms=(),
        )  # fmt: skip
        source = partial(FeastSource, settings, repository=package)
        return OnlineReader(source, plan, ReaderOptions(**options))

    return make


def feast_writes(store, view, **columns):
    import pandas as pd

    stamp = pd.to_datetime(["2013-01-01T00:10:00Z"] * len(columns["origin"]))
    frame = pd.DataFrame({**columns, "event_timestamp": stamp, "created_timestamp": stamp})
    store.write_to_online_store(view, frame)


def test_what_feast_wrote_is_read_by_our_rule(world, open_reader, read):
    gates = read(
        view="gates",
        keys=(JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64")),
        ttl_minutes=None,
        features=GATES,
    )
    feast_writes(world[2], "hourly", origin=["JFK", "LGA"], x=[1.5, 2.5])
    feast_writes(
        world[2], "gates", origin=["JFK"], gate=[7], wait=[0.5], passengers=[180], open=[True]
    )
    reader = open_reader(read(), gates)
    keys = {"origin": ["LGA", "JFK", "EWR", None, "JFK", "JFK"], "gate": [7, 7, 7, 7, 8, 7]}
    rows = reader.read(keys, at(20, 20, 20, 20, 71, 9))
    nan = np.nan
    np.testing.assert_array_equal(rows.columns["hourly__x"], [2.5, 1.5, nan, nan, nan, nan])
    words = [ReadStatus(code).name for code in rows.status["hourly"]]
    assert words == ["PRESENT", "PRESENT", "NEVER_SEEN", "NEVER_SEEN", "EXPIRED", "FUTURE"]
    values = [rows.columns[f"gates__{feature.name}"][1] for feature in GATES]
    assert values == [0.5, 180, 1]
    assert rows.event_times["hourly"][:2].tolist() == at(10, 10).tolist()


def test_a_feature_that_feast_does_not_define_is_named(open_reader, read):
    other = read(features=(FeatureRead(name="y", dtype="DOUBLE"),))
    with pytest.raises(FeatureNotMaterialized, match=r"hourly with y .* feature_store.yaml"):
        open_reader(other)


def test_an_error_of_feasts_store_is_ours(world, open_reader, monkeypatch):
    reader, lenient = open_reader(), open_reader(degrade=True)

    def fail(*_, **__):
        raise RuntimeError("no connection")

    monkeypatch.setattr("feast.FeatureStore.get_online_features", fail)
    with pytest.raises(OnlineStoreFailed, match=r"cannot read the online store .*: no connection"):
        reader.read({"origin": ["JFK"]}, at(20))
    status = lenient.read({"origin": ["JFK"]}, at(20)).status["hourly"]
    assert status.tolist() == [ReadStatus.UNAVAILABLE]
