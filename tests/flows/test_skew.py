"""The skew check on what a real server has logged: nothing on a healthy world, faults by name."""

import shutil
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import load_catalog
from featurestore.push.push import push
from headrace import storage
from headrace.settings import Settings
from headrace.window import Window
from monitoring.inference_log import read_log
from tasks import sample, serving_check

pytestmark = pytest.mark.slow

MODEL = "flight_delay"
MARCH = datetime(2013, 3, 1, tzinfo=UTC)
PUSHED = datetime(2013, 2, 28, 23, 30, tzinfo=UTC)
WEEK = Window(since=MARCH, until=datetime(2013, 3, 8, tzinfo=UTC))


def push_weather(settings, airport, moment, *, to):
    """Push the airport's first weather again, as of another moment."""
    weather = pq.read_table(settings.uri("offline", "weather.parquet"))
    row = next(row for row in weather.to_pylist() if row["origin"] == airport)
    times = {"event_timestamp": moment, "created_timestamp": moment}
    rows = pa.Table.from_pylist([row | times], schema=weather.schema)
    push(settings, load_catalog(settings), "weather", rows, to=to)


@pytest.fixture(scope="module")
def answered_home(trained_home, tmp_path_factory):
    """A trained home whose server has answered 200 flights, after newer weather was pushed."""
    home = tmp_path_factory.mktemp("answered") / "home"
    shutil.copytree(trained_home, home)
    settings = Settings(home=home)
    for airport in ("JFK", "LGA", "EWR"):
        push_weather(settings, airport, PUSHED, to="both")
    asked = [
        row | {"scheduled_departure": MARCH.isoformat()}
        for row in sample.request_rows(settings, MODEL, WEEK, rows=200)
    ]
    serving_check.ask_once(settings, MODEL, asked)
    return home


@pytest.fixture
def answered(answered_home, world_of):
    return world_of(answered_home)


def found_by(world):
    code, report = world.report("check_skew", "--endpoint", MODEL)
    (bundle,) = report["skew"]["reports"]
    return code, bundle, {(f["source"], f["cause"]): f["values"] for f in bundle["findings"]}


def table_at(world, name):
    uri = world.settings.uri("offline", f"{name}.parquet")
    return uri, pq.read_table(uri)


def put(uri, table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_atomic(uri, sink.getvalue().to_pybytes())


def changed_in_log(world, column, change):
    """Change one column of the server's log."""
    folder = world.settings.uri("inference_log", MODEL)
    for hour in storage.list_names(folder):
        for name in storage.list_names(f"{folder}/{hour}"):
            uri = f"{folder}/{hour}/{name}"
            table = pq.read_table(uri)
            place = table.column_names.index(column)
            put(uri, table.set_column(place, column, change(table[column])))


def test_a_healthy_world_has_no_mismatch(answered):
    code, bundle, findings = found_by(answered)
    assert (code, findings, bundle["mismatches"]) == (0, {}, 0)
    assert bundle["rows"] == 200
    assert bundle["values"] > 200 * 30
    assert bundle["changed_transforms"] == []


def test_the_server_answers_with_what_was_pushed_at_once(answered):
    now = datetime.now(UTC)
    log = read_log(answered.settings.storage_uri, MODEL, since=now - timedelta(hours=2), until=now)
    assert set(log["event_time__weather"].to_pylist()) == {PUSHED}


def test_each_seeded_fault_is_named(answered):
    # A value that nobody had materialised: a push to the offline store only.
    newer = datetime(2013, 2, 28, 23, 45, tzinfo=UTC)
    push_weather(answered.settings, "JFK", newer, to="offline")
    # A row of the table that has become another number since.
    uri, planes = table_at(answered, "planes")
    seats = pa.array([None if n is None else n + 1 for n in planes["seats"].to_pylist()])
    put(uri, planes.set_column(planes.column_names.index("seats"), "seats", seats))
    # A transform that computed otherwise.
    changed_in_log(
        answered, "scheduled_hour", lambda c: pa.array([h + 1 for h in c.to_pylist()], c.type)
    )
    code, bundle, findings = found_by(answered)
    assert code == 3
    assert {cause for _, cause in findings} == {"stale", "cast", "transform_version"}
    assert findings["flights.scheduled_hour", "transform_version"] == 200
    assert findings["planes", "cast"] > 100
    assert ("weather", "stale") in findings
    assert {example["cause"] for example in bundle["examples"]} == {cause for _, cause in findings}


def test_a_window_in_which_nobody_asked_is_refused(answered, capsys):
    assert answered.run("check_skew", "--endpoint", MODEL, "--month", "2001-01") == 2
    assert "has no request in 2001-01-01..2001-02-01" in capsys.readouterr().err
