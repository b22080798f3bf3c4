"""kill -9 of a materialisation at a random point of its work, then the same one once more.

Row R16: the online store never holds an older value where it held a newer one, and after the kill
and one more run it holds what it would without the kill. Rows are checked against a loop over the
whole history that a child could check.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from featurestore.catalog.catalog import Catalog
from featurestore.stores.materialize import materialize
from featurestore.stores.open_store import open_store
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

ENTITIES = 2_000
START = datetime(2013, 1, 1, tzinfo=UTC)
EARLIER, LATER = START + timedelta(hours=1), START + timedelta(hours=2)
VIEW = ViewRead(
    view="hourly",
    table="hourly",
    join_keys=(JoinKey(name="customer", dtype="INT64"),),
    event_timestamp="event_timestamp",
    created_timestamp="created_timestamp",
    ttl_seconds=None,
    features=(FeatureRead(name="x", dtype="DOUBLE"), FeatureRead(name="n", dtype="INT64")),
)
CATALOG = Catalog(project="tiny", definitions_sha256="", views=(VIEW,), services={})


def history(seed):
    """Rows (customer, event, created, x, n) of three hours: some written late, some corrected."""
    chance = random.Random(seed)
    rows = []
    for number in range(3 * ENTITIES):
        event = chance.randrange(3 * 3600)
        late = chance.choice([0, 0, 0, 600, 4000])
        customer = chance.randrange(ENTITIES)
        rows.append((customer, event, event + late, chance.random(), number))
    return rows


def latest_by(rows, until):
    """What an online store must hold of what was known by a moment, by customer."""
    end, latest = (until - START).total_seconds(), {}
    for customer, event, created, x, n in rows:
        known = event <= end and created <= end
        if known and (customer not in latest or (event, created) >= latest[customer][:2]):
            latest[customer] = (event, created, x, float(n))
    return latest


@dataclass
class Bench:
    """One history, and child processes that materialise it into stores of its own."""

    folder: Path
    child: subprocess.Popen
    rows: list

    def settings(self, online_store):
        return Settings(home=self.folder, online_store=online_store)

    def job(self, settings, until, *, rebuild=False, naive=False):
        return {
            "home": str(settings.home),
            "online_store": settings.online_store,
            "catalog": CATALOG.model_dump_json(),
            "until": until.isoformat(),
            "rebuild": rebuild,
            "naive": naive,
        }

    def run(self, job, *, kill_after=None):
        """Run a job in a child that kills itself after so much work; how much it did, its end.

        Work is bytes sent to Redis, or hundreds of SQLite's instructions: never time.
        """
        before = received_by_redis(job["online_store"])
        self.child.stdin.write(json.dumps(job | {"kill_after": kill_after}) + "\n")
        self.child.stdin.flush()
        code = int(self.child.stdout.readline())
        if code != 0:
            return None, code
        if "://" in job["online_store"]:
            return received_by_redis(job["online_store"]) - before, code
        return int(Path(f"{job['online_store']}.steps").read_text()), code


def received_by_redis(url):
    """How many bytes a server has been sent; 0 of a file."""
    if "://" not in url:
        return 0
    with contextlib.closing(redis.Redis.from_url(url)) as server:
        return server.info("stats")["total_net_input_bytes"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("bench"), history(11)
    customers, events, created, xs, ns = zip(*rows, strict=True)
    clock = pa.timestamp("us", tz="UTC")
    columns = {
        "customer": pa.array(customers, pa.int64()),
        "event_timestamp": pa.array([START + timedelta(seconds=s) for s in events], clock),
        "created_timestamp": pa.array([START + timedelta(seconds=s) for s in created], clock),
        "x": xs,
        "n": ns,
    }
    offline = Path(Settings(home=folder).uri("offline"))
    offline.mkdir(parents=True)
    pq.write_table(pa.table(columns), offline / "hourly.parquet", write_page_checksum=True)
    command = [sys.executable, str(Path(__file__).parent / "materializer.py")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        child.stdout.readline()
        yield Bench(folder, child, rows)
        child.stdin.close()


@pytest.fixture(params=["sqlite", "redis"])
def fresh(request, bench, tmp_path):
    """Makes settings with an empty online store, again and again."""

    def make():
        if request.param == "redis":
            url = request.getfixturevalue("redis_url")
            with contextlib.closing(redis.Redis.from_url(url)) as server:
                server.flushall()
            return bench.settings(url)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        return bench.settings(str(path))

    return make


@pytest.fixture
def look(held):
    """Every row of the view, in seconds since START by customer, and the record."""
    began = int(START.timestamp()) * 1_000_000

    def see(settings):
        found = {
            int.from_bytes(key[-8:], "little", signed=True): (
                (row[0] - began) / 1e6,
                (row[1] - began) / 1e6,
                *row[2:],
            )
            for key, row in held(settings, VIEW).items()
        }
        with contextlib.closing(open_store(settings, "tiny")) as store:
            return found, store.views()[VIEW.view]

    return see


def kill_again_and_again(bench, fresh, look, kills, chance):
    """Kill runs at random points; every third one is a rebuild that goes back in time."""
    old, new = latest_by(bench.rows, EARLIER), latest_by(bench.rows, LATER)
    assert len(old) < len(new)
    killed = resumed = 0
    sizes = {}
    for number in range(kills):
        rebuild = number % 3 == 2
        first, then = (LATER, EARLIER) if rebuild else (EARLIER, LATER)
        before, after = (new, old) if rebuild else (old, new)
        settings = fresh()
        materialize(settings, CATALOG, until=first)
        job = bench.job(settings, then, rebuild=rebuild)
        if rebuild not in sizes:
            sizes[rebuild], code = bench.run(job)
            assert code == 0
            assert look(settings)[0] == after
            continue
        _, code = bench.run(job, kill_after=chance.randrange(1, sizes[rebuild]))
        killed += code == -signal.SIGKILL
        left, record = look(settings)
        allowed = {None} if rebuild else set()
        for customer in set(before) | set(after):
            row = left.get(customer)
            assert row in (before.get(customer), after.get(customer)) or row in allowed
            if not rebuild and customer in before:
                assert row[:2] >= before[customer][:2]
        resumed += record.progress is not None
        materialize(settings, CATALOG, until=then, rebuild=rebuild and record.generation == 1)
        again, record = look(settings)
        assert again == after
        assert (record.loading, record.progress, record.replaced) == (False, None, ())
        assert record.until_us == int(then.timestamp()) * 1_000_000
    return killed, resumed


def test_a_killed_materialisation_is_made_good_by_the_next(bench, fresh, look):
    killed, resumed = kill_again_and_again(bench, fresh, look, 10, random.Random(5))
    assert killed >= 6
    assert resumed >= 2


@pytest.mark.soak
def test_fifty_killed_materialisations_are_made_good(bench, fresh, look):
    killed, resumed = kill_again_and_again(bench, fresh, look, 52, random.Random())
    assert killed >= 45
    assert resumed >= 10


def test_a_killed_first_load_is_made_good_and_told_as_loading(bench, fresh, look):
    new, chance = latest_by(bench.rows, LATER), random.Random(6)
    settings = fresh()
    size, _ = bench.run(bench.job(settings, LATER))
    killed = 0
    for _ in range(3):
        settings = fresh()
        _, code = bench.run(bench.job(settings, LATER), kill_after=chance.randrange(1, size))
        with contextlib.closing(open_store(settings, "tiny")) as store:
            there = store.views().get(VIEW.view)
        if there is not None and not there.loading:
            assert look(settings)[0] == new
        killed += code != 0
        done = materialize(settings, CATALOG, until=LATER)[0]
        assert done.keys_written in (len(new), 0)
        assert look(settings)[0] == new
    assert killed >= 1


def test_a_naive_run_that_moves_the_watermark_first_is_found_out(bench, fresh, look):
    new = latest_by(bench.rows, LATER)
    settings = fresh()
    materialize(settings, CATALOG, until=EARLIER)
    size, _ = bench.run(bench.job(settings, LATER))
    settings = fresh()
    materialize(settings, CATALOG, until=EARLIER)
    bench.run(bench.job(settings, LATER, naive=True), kill_after=size // 2)
    materialize(settings, CATALOG, until=LATER)
    assert look(settings)[0] != new
