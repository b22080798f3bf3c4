"""Kill real processes at points of progress, never of time, while a reader watches.

A ``Job`` is a command that writes rows somewhere, a count of how far it has come, and what a reader
sees. ``Killing`` runs a job, kills it at given counts, runs it again until it is done, and says
everything that was wrong. The writers in ``naive/`` go through the same, and must be found out.
"""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.settings import Settings
from headrace.window import Window
from tasks.batch import commit
from tasks.scoring_table import scoring_rows

GIVE_UP_SECONDS = 120
ROWS_A_SHARD = 64
_POLL_SECONDS = 0.0005


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, how far it has come, and what a reader sees of it."""

    command: list[str]
    progress: Callable[[], int]
    """How many pieces are written; the command may be killed at each."""
    read: Callable[[], list | None]
    """The rows that a reader gets; None where nothing is to be seen yet."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Seen:
    """What a reader saw while the job ran: how many rows, and what broke."""

    rows: set[int] = dataclasses.field(default_factory=set)
    errors: set[str] = dataclasses.field(default_factory=set)

    def look(self, read: Callable[[], list | None]) -> list:
        """Read once; whatever the reader meets that is unreadable is written down."""
        try:
            rows = read() or []
        except Exception as error:  # noqa: BLE001  (any error is one too many)
            self.errors.add(f"{type(error).__name__}: {error}"[:200])
            return []
        self.rows.add(len(rows))
        return rows

    def watch(self, read: Callable[[], list | None], until: threading.Event) -> None:
        """Read again and again."""
        while not until.is_set():
            self.look(read)
            time.sleep(0.005)


def start(job: Job) -> subprocess.Popen:
    """Start a job in a process group of its own, so that its workers can die with it."""
    return subprocess.Popen(
        job.command,
        env=os.environ | job.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_at(job: Job, count: int, *, group: bool) -> bool:
    """Run a job and kill -9 it when ``count`` pieces are written; False if it was done before."""
    process = start(job)
    errors = _drained(process)
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while job.progress() < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    killed = process.poll() is None
    if killed:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    errors.join(GIVE_UP_SECONDS if not killed or group else 0)
    assert time.monotonic() < deadline, f"{count} pieces were never written"
    return killed


def finish(job: Job) -> None:
    """Run a job to its end."""
    done = subprocess.run(
        job.command,
        env=os.environ | job.environment,
        capture_output=True,
        text=True,
        timeout=GIVE_UP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _drained(process: subprocess.Popen) -> threading.Thread:
    # A job that cannot write its log any more would stop; what it says does not matter here.
    def drain() -> None:
        with process.stderr:
            for _ in process.stderr:
                pass

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def watched(job: Job) -> Iterator[Seen]:
    """A reader that polls for as long as the block runs."""
    seen, stop = Seen(), threading.Event()
    reader = threading.Thread(target=seen.watch, args=(job.read, stop))
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join()


def wrongs(wanted: list, found: list, seen: Seen) -> list[str]:
    """Everything wrong with a finished job; empty if no row was lost, doubled or seen too early."""
    want, have = Counter(wanted), Counter(found)
    lost, more = (want - have).total(), (have - want).total()
    partial = sorted(seen.rows - {0, len(wanted)})
    told = {
        f"{lost} rows lost": lost,
        f"{more} rows doubled or invented": more,
        f"a reader saw {partial} of {len(wanted)} rows": partial,
        f"a reader met {sorted(seen.errors)[:2]}": seen.errors,
    }
    return [what for what, is_so in told.items() if is_so]


class Killing:
    """Run a job under kills; ``kills`` says how many really hit it."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random, self.kills = seed, random.Random(seed), 0

    def __call__(self, job: Job, wanted: list, *, points: list[int]) -> list[str]:
        """Kill at each point in turn, finish, and return what is wrong."""
        with watched(job) as seen:
            for number, point in enumerate(points):
                # In turn with its workers, and alone, which leaves them behind as orphans.
                self.kills += kill_at(job, point, group=number % 2 == 0)
            finish(job)
        return wrongs(wanted, seen.look(job.read), seen)

    def points(self, pieces: int, count: int) -> list[int]:
        """Rising counts of pieces at which to kill."""
        return sorted(self.random.sample(range(1, pieces), count))


@pytest.fixture
def killing(request: pytest.FixtureRequest) -> Killing:
    """Kills by a seed, shown when the test fails; set FAULTS_SEED to see the same ones again."""
    seed = int(os.environ.get("FAULTS_SEED", time.time_ns() % 1_000_000))
    seed += getattr(request, "param", 0)
    print(f"FAULTS_SEED={seed}")
    return Killing(seed)


@pytest.fixture
def naive(tmp_path: Path) -> Callable[[str, int, int], Job]:
    """A job of a writer in ``naive/``: pieces of some rows each, in a folder that readers list."""

    def build(writer: str, pieces: int, rows: int) -> Job:
        folder = tmp_path / "out"
        folder.mkdir()
        script = Path(__file__).parent / "naive" / f"{writer}.py"

        def read() -> list | None:
            tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
            return [row for table in tables for row in table["row"].to_pylist()] or None

        return Job(
            command=[sys.executable, str(script), str(folder), str(pieces), str(rows)],
            progress=lambda: len(list(folder.glob("*.parquet"))),
            read=read,
        )

    return build


@dataclasses.dataclass(frozen=True)
class Batch:
    """A small batch prediction in a world of its own, with many shards."""

    home: Path
    input: Path

    workers: int = 1
    """Dask workers of the command; one starts fastest."""

    @property
    def arguments(self) -> list[str]:
        """What the command is given; the same, to the name of every shard, in every world."""
        return [
            *("--model", "flight_delay", "--input", str(self.input)),
            *("--rows-per-shard", str(ROWS_A_SHARD)),
            *("--output", self.output, "--compute", "cluster"),
        ]

    @property
    def shards(self) -> int:
        """How many shards it has."""
        return int(pq.ParquetFile(self.input).num_row_groups)

    @property
    def rows(self) -> list:
        """The key of each row that goes in."""
        return _keys_of(pq.read_table(self.input))

    @property
    def output(self) -> str:
        """Where its predictions are."""
        return str(self.home / "predictions")

    def progress(self) -> int:
        """How many shards are recorded."""
        return sum(1 for _ in Path(self.output, "shards").glob("[0-9a-f]*.json"))

    def read(self) -> list | None:
        """The key of each row that a reader gets, scored or rejected."""
        if commit.read_manifest(self.output) is None:
            return None
        both = [commit.read_predictions(self.output, rejected=no) for no in (False, True)]
        return [key for table in both if table.num_rows for key in _keys_of(table)]

    def parts(self) -> set[str]:
        """The names of the files that a reader could mistake for data."""
        return {path.name for path in Path(self.output).rglob("*.parquet")}

    def run(self) -> int:
        """Run the batch in this process; return its exit code."""
        from flows.batch_predict import main

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADRACE_HOME", str(self.home))
            return main(self.arguments)

    @property
    def job(self) -> Job:
        """The batch as a command."""
        return Job(
            command=[sys.executable, "-m", "flows.batch_predict", *self.arguments],
            progress=self.progress,
            read=self.read,
            environment={
                "HEADRACE_HOME": str(self.home),
                "HEADRACE_WORKERS": str(self.workers),
            },
        )


@pytest.fixture(scope="session")
def many_shards(sample_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of flights as a Parquet file of many row groups: what all batches here score."""
    path = tmp_path_factory.mktemp("input") / "flights.parquet"
    window = Window(since=datetime(2013, 3, 4, tzinfo=UTC), until=datetime(2013, 3, 6, tzinfo=UTC))
    rows = scoring_rows(Settings(home=sample_home), "flight_delay", window)
    pq.write_table(rows, path, row_group_size=ROWS_A_SHARD)
    return path


@pytest.fixture
def batch(world: Any, many_shards: Path) -> Batch:
    """A batch that nobody has run."""
    return Batch(world.home, many_shards)


@pytest.fixture(scope="session")
def unkilled(
    trained_home: Path, many_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> commit.Manifest:
    """The manifest of the same batch where nothing was killed."""
    home = tmp_path_factory.mktemp("unkilled") / "home"
    shutil.copytree(trained_home, home)
    batch = Batch(home, many_shards)
    assert batch.run() == 0
    manifest = commit.read_manifest(batch.output)
    assert manifest is not None
    return manifest


def _keys_of(table: pa.Table) -> list[tuple]:
    keys = ("origin", "dest", "carrier", "tailnum", "scheduled_departure")
    return list(zip(*(table[key].to_pylist() for key in keys), strict=True))
