"""Jobs outlive kill -9 of the servers that compute them, and each row is answered exactly once.

The negative control is a store whose changes are not compared with what is kept: a process that was
thought dead comes back, and the same look at the result must find its rows counted twice.
"""

import json
import os
import random
import signal
import time
from collections import Counter

import httpx
import msgspec
import numpy as np
import pytest

from headrace.settings import Settings
from serving.jobs.job import State
from serving.jobs.queue import JobQueue, Limits
from serving.jobs.sqlite_store import SqliteJobStore
from serving.predictor import load_predictor
from tests.faults.load import serving
from tests.faults.serving_home import write_home

URL = "/api/v1/jobs"
PART_ROWS = 16
LEASE_SECONDS = 0.5


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a released model, and what that answers for each number of miles."""
    home = tmp_path_factory.mktemp("home")
    digest = write_home(home)
    predictor = load_predictor(f"{Settings(home=home).storage_uri}/bundles", digest)

    def answers(rows):
        miles = np.arange(rows)
        matrix = np.column_stack([np.full(rows, 0.25), np.full(rows, 12.5), miles])
        return predictor.predict(matrix.astype(np.float32)).tolist()

    return home, digest, answers


def instances(rows):
    """Rows of which every hundredth is refused."""
    moment = "2013-08-01T12:00:00Z"
    return [
        {
            "origin": "JFK",
            "scheduled_departure": moment,
            "distance_miles": "far" if n % 100 == 99 else n,
        }
        for n in range(rows)
    ]


def wrongs(job, lines, wanted):
    """Everything wrong with the result of a job; empty if each row is there once, and right."""
    counts = Counter(line["row"] for line in lines)
    good = {line["row"]: line["prediction"] for line in lines if "prediction" in line}
    told = {
        "rows lost": set(range(job["rows"])) - set(counts),
        "rows doubled": {row for row, times in counts.items() if times > 1},
        "rows wrong": {row for row, value in good.items() if value != wanted[row]},
        "rows of several bundles": {line["version"] for line in lines if "version" in line}
        - {job["digest"][:12]},
        f"{job['predicted']} + {job['refused']} rows counted": job["predicted"] + job["refused"]
        != job["rows"],
        f"{len(good)} of {job['predicted']} predicted": len(good) != job["predicted"],
    }
    return [what for what, is_so in told.items() if is_so]


class Survivor:
    """Submits jobs to servers that are killed, and follows them from one server to the next."""

    def __init__(self, home, **settings):
        self._home = home
        self._settings = {
            "jobs_part_rows": PART_ROWS,
            "jobs_lease_seconds": LEASE_SECONDS,
            "poll_seconds": 1,
        } | settings
        self.kills, self.progress = 0, []

    def server(self):
        return serving(self._home, **self._settings)

    def submit(self, rows, share):
        """Submit a job, and kill the server when a share is done; 0: at once."""
        with self.server() as server, httpx.Client(base_url=address(server)) as client:
            accepted = client.post(URL, json={"instances": instances(rows)})
            assert accepted.status_code == 202, accepted.text
            if share:
                self._follow(client, accepted.json()["id"], share)
            os.kill(server.pid, signal.SIGKILL)
        self.kills += 1
        return accepted.json()["id"]

    def kill_at(self, job_id, share):
        """Let a server compute until a share is done, and kill it."""
        with self.server() as server, httpx.Client(base_url=address(server)) as client:
            job = self._follow(client, job_id, share)
            os.kill(server.pid, signal.SIGKILL)
        self.kills += job["state"] == "running"

    def finish(self, job_id):
        """The job when it has ended, and its result."""
        with self.server() as server, httpx.Client(base_url=address(server)) as client:
            job = self._follow(client, job_id, 1.0)
            while not job["ended_at"]:
                job = client.get(f"{URL}/{job_id}").json()
            lines = client.get(job["result"]).text.splitlines()
            return job, [json.loads(line) for line in lines]

    def _follow(self, client, job_id, share):
        deadline = time.monotonic() + 60
        while True:
            job = client.get(f"{URL}/{job_id}").json()
            self.progress.append(job["progress"])
            if job["progress"] >= share:
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.002)


def address(server):
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("kind", "rows", "kills"),
    [
        ("sqlite", 3_000, 2),
        ("redis", 3_000, 1),
        pytest.param("sqlite", 40_000, 40, marks=pytest.mark.soak),
        pytest.param("redis", 40_000, 40, marks=pytest.mark.soak),
    ],
)
def test_every_row_is_answered_once_whatever_is_killed(home, request, tmp_path, kind, rows, kills):
    folder, digest, answers = home
    where = request.getfixturevalue("redis_url") if kind == "redis" else str(tmp_path / "jobs.db")
    seed = int(os.environ.get("FAULTS_SEED", time.time_ns() % 1_000_000))
    print(f"FAULTS_SEED={seed}")
    survivor = Survivor(folder, jobs_store=where)
    shares = sorted(random.Random(seed).uniform(0.02, 0.9) for _ in range(kills))
    if kind == "sqlite":
        shares[0] = 0.0  # what was accepted must be there, also when nothing was begun
    job_id = survivor.submit(rows, shares[0])
    for share in shares[1:]:
        survivor.kill_at(job_id, share)
    job, lines = survivor.finish(job_id)
    print(f"{survivor.kills} kills, {job['rows']:,} rows")
    assert (job["state"], job["digest"], survivor.kills) == ("done", digest, kills)
    assert wrongs(job, lines, answers(rows)) == []
    assert job["refused"] == rows // 100
    assert survivor.progress == sorted(survivor.progress)  # nothing that was kept is lost


class Careless(SqliteJobStore):
    """The negative control: whoever writes last is right."""

    def replace(self, old, new, *, answer=None):
        kept = self.get(old.id)
        assert kept is not None
        newer = msgspec.structs.replace(new, version=kept.version + 1)
        return super().replace(kept, newer, answer=answer)


@pytest.mark.parametrize(("store", "is_found_out"), [(SqliteJobStore, False), (Careless, True)])
def test_a_process_that_was_thought_dead_changes_nothing(tmp_path, store, is_found_out):
    now = [1_000.0]
    limits = Limits(most_queued=9, lease_seconds=10, keep_seconds=100)
    queue = JobQueue(store(tmp_path / "jobs.db"), limits, clock=lambda: now[0])
    job_id = queue.submit("m", [b"0", b"1"], rows=2, part_rows=1).id
    dead = queue.begin(queue.claim(["m"]), digest="d" * 64, revision=1)
    now[0] += 11
    heir = queue.begin(queue.claim(["m"]), digest="d" * 64, revision=1)
    keep = {"answer": b"x", "predicted": 1, "refused": 0}
    heir = queue.keep(heir, **keep)
    woken = queue.keep(dead, **keep)
    heir = queue.keep(heir, **keep)
    for owner in (heir, woken):
        if owner is not None:
            queue.end(owner, State.DONE)
    job = queue.get(job_id)
    told = {"rows": 2, "predicted": job.predicted, "refused": 0, "digest": job.digest}
    lines = [
        {"row": row, "prediction": 1.0, "version": "d" * 12}
        for row, _ in enumerate(queue.store.answers(job))
    ]
    queue.store.close()
    assert bool(wrongs(told, lines, [1.0, 1.0])) is is_found_out
