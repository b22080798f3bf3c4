"""What the server reads at T is what training would have seen at T."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore.catalog.catalog import load_catalog
from featurestore.columns import TIMESTAMP
from featurestore.flights.sources import write_tables
from featurestore.join.pit import NullReason, point_in_time_join
from featurestore.offline.tables import read_table
from featurestore.online.reader import open_online_reader
from featurestore.stores.materialize import materialize
from headrace.plan import FeaturePlan
from headrace.settings import Settings

UNTIL = datetime(2013, 1, 11, tzinfo=UTC)
FLIGHTS_A_MOMENT = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The sample tables of ten days, and their catalog."""
    settings = Settings(home=tmp_path_factory.mktemp("parity"))
    write_tables(settings.uri("offline"), until=UNTIL)
    return settings, load_catalog(settings)


def plan_of(catalog):
    return FeaturePlan(
        project=catalog.project,
        feature_service="all",
        definitions_sha256=catalog.definitions_sha256,
        event_timestamp="at",
        views=catalog.views,
        request=(),
        inputs_from_request=(),
        transforms=(),
    )


def known_by(table, view, moment):
    """The rows that had been written by the moment: all that the online store can know of."""
    times = [
        pc.less_equal(table[c], moment) for c in (view.event_timestamp, view.created_timestamp)
    ]
    return table.filter(pc.and_(*times))


def flights_asked(settings, random):
    """Entities of real flights, some mixed across flights, some null, some never seen."""
    flights = read_table(settings.uri("offline"), "flight_schedule")
    rows = {}
    for key in ("origin", "dest", "carrier", "tailnum"):
        picked = flights[key].take(pa.array(random.integers(0, len(flights), FLIGHTS_A_MOMENT)))
        rows[key] = picked.to_pylist()
        rows[key][:2] = [None, "NOWHERE"]
    return rows


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_online_reads_equal_point_in_time_joins_at_every_moment(world, store, request):
    settings, catalog = world
    if store == "redis":
        redis_url = request.getfixturevalue("redis_url")
        settings = settings.model_copy(update={"online_store": redis_url})
    random = np.random.default_rng(7)
    minutes = np.sort(random.integers(60, 10 * 24 * 60, 12))
    compared = present = 0
    reader = None
    for minute in minutes.tolist():
        moment = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
        materialize(settings, catalog, until=moment)
        reader = reader or open_online_reader(settings, plan_of(catalog))
        keys = flights_asked(settings, random)
        at = np.full(FLIGHTS_A_MOMENT, np.datetime64(moment.replace(tzinfo=None), "us"))
        online = reader.read(keys, at)
        rows = pa.table(keys).append_column("at", pa.array(at).cast(TIMESTAMP))
        for view in catalog.views:
            values = known_by(read_table(settings.uri("offline"), view.table), view, moment)
            offline = point_in_time_join(rows, values, view, timestamp="at")
            # Online a null key is an entity never seen.
            reasons = np.where(
                offline.reasons == NullReason.NULL_KEY, NullReason.NEVER_SEEN, offline.reasons
            )
            np.testing.assert_array_equal(online.status[view.view], reasons)
            np.testing.assert_array_equal(online.event_times[view.view], offline.event_times)
            for column in view.columns:
                np.testing.assert_array_equal(online.columns[column], offline.columns[column])
                compared += FLIGHTS_A_MOMENT
            present += int((offline.reasons == 0).sum())
    reader.close()
    assert compared > 100_000
    assert present > 10_000


def test_steps_and_one_leap_make_the_same_store(world, tmp_path):
    settings, catalog = world
    stores = [settings.model_copy(update={"online_store": str(tmp_path / n)}) for n in "ab"]
    for day in range(2, 11):
        materialize(stores[0], catalog, until=datetime(2013, 1, day, tzinfo=UTC))
    materialize(stores[1], catalog, until=datetime(2013, 1, 10, tzinfo=UTC))
    assert _dump(stores[0], catalog) == _dump(stores[1], catalog)


def _dump(settings, catalog):
    import sqlite3

    with sqlite3.connect(settings.online_path) as db:
        return {
            view.view: db.execute(
                f'SELECT * FROM "{catalog.project}_{view.view}" ORDER BY entity_key, feature_name'
            ).fetchall()
            for view in catalog.views
        }
