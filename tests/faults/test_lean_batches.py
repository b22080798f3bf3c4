"""R2, R6, R9, R20 on the commit protocol itself: batches without Prefect, killed and starved.

The flow on top of it is killed in ``test_kill_flow.py``.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tasks.batch import commit
from tasks.batch.output import ShardWriter, recorded_shards
from tasks.batch.parts import _HashedFile
from tests.faults import lean
from tests.faults.conftest import Job, watched, wrongs

KILLED = -9


class Lean:
    """The server of lean batches, and what their readers get."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        assert self._answer() == "ready"

    def __call__(self, output: Path, **job: object) -> list[int]:
        """Run a batch into ``output``; the exit codes of its processes."""
        return self.ask(output, **job)["codes"]

    def ask(self, output: Path, **job: object) -> dict:
        """The same, with what the processes said."""
        self._process.stdin.write(json.dumps({"output": str(output), **job}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def batch():
    """Runs a lean batch in a process of its own."""
    command = [sys.executable, lean.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        yield Lean(process)
        process.stdin.close()


@pytest.fixture(scope="module")
def unbroken(batch, tmp_path_factory):
    """The manifest of a batch that nothing happened to."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    assert batch(output) == [lean.COMMITTED]
    return commit.read_manifest(str(output))


def read(output: Path) -> list[int] | None:
    """Every row that a reader gets, scored or rejected; None before the first commit."""
    if commit.read_manifest(str(output)) is None:
        return None
    both = [commit.read_predictions(str(output), rejected=rejected) for rejected in (False, True)]
    return [row for table in both for row in table["row"].to_pylist()]


def files(output: Path) -> list[str]:
    return [path.name for path in output.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def changes(batch, tmp_path_factory) -> int:
    """How many changes of files a whole batch makes."""
    return batch.ask(tmp_path_factory.mktemp("counted") / "out", kill_at=10**9)["changes"]


def kill(batch, output: Path, points: list[int], unbroken) -> tuple[int, list[str]]:
    """Kill a batch at each point in turn, finish it; how many kills hit, and what is wrong."""
    job = Job(command=[], progress=lambda: 0, read=lambda: read(output))
    with watched(job) as seen:
        kills = sum(batch(output, kill_at=point) == [KILLED] for point in points)
        codes = batch(output)
    wrong = [] if codes[0] in (lean.COMMITTED, lean.FOUND_COMMITTED) else [f"exit code {codes}"]
    wrong += wrongs(lean.rows_in(), seen.look(job.read), seen)
    if commit.read_manifest(str(output)).digest != unbroken.digest:
        wrong.append("its digest is not that of the unbroken run")
    if len(commit.history(str(output))) != 1:
        wrong.append("it was committed more than once")
    return kills, wrong


def kill_a_batch(batch, output: Path, killing, unbroken) -> tuple[int, list[str]]:
    """Kill a batch again and again while it comes a shard or two further each time."""
    points = [killing.random.randrange(1, 40) for _ in range(8)]
    return kill(batch, output, points, unbroken)


def test_batches_killed_at_any_change_of_a_file_are_the_batch_that_was_never_killed(
    batch, unbroken, tmp_path, changes, killing, scorecard
):
    kills, wrong = kill_a_batch(batch, tmp_path / "out", killing, unbroken)
    for before_the_end in range(4):  # amid the commit
        point = changes - before_the_end
        more, found = kill(batch, tmp_path / f"end {before_the_end}", [point], unbroken)
        kills, wrong = kills + more, wrong + found
    figure = f"{kills} kills of a process, {len(wrong)} wrong"
    scorecard("R2", passed=not wrong, figure=figure, seed=killing.seed)
    assert wrong == []
    assert kills >= 8


@pytest.mark.soak
def test_two_hundred_kills_of_a_batch_lose_and_double_nothing(
    batch, unbroken, tmp_path, changes, killing, scorecard
):
    kills, wrong = 0, []
    while kills < 200:
        more, found = kill_a_batch(batch, tmp_path / f"all along {kills}", killing, unbroken)
        kills, wrong = kills + more, wrong + found
        point = killing.random.randrange(1, changes)
        more, found = kill(batch, tmp_path / f"once {kills}", [point], unbroken)
        kills, wrong = kills + more, wrong + found
    figure = f"{kills} kills of a process, {len(wrong)} wrong"
    scorecard("R2", passed=not wrong, figure=figure, seed=killing.seed)
    assert wrong == []


def start_eight(batch, output: Path, unbroken) -> list[str]:
    """Start a batch eight times at once; what is wrong."""
    codes = batch(output, processes=8)
    manifest = commit.read_manifest(str(output))
    wrong = []
    if sorted(codes) != [lean.COMMITTED] + [lean.FOUND_COMMITTED] * 7:
        wrong.append(f"exit codes {codes}")
    if len(commit.history(str(output))) != 1 or manifest.digest != unbroken.digest:
        wrong.append("not one manifest, that of the unbroken run")
    return wrong


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.soak)])
def test_of_eight_starts_at_once_one_commits_and_seven_find_it_done(
    batch, unbroken, tmp_path, rounds, scorecard
):
    wrong = [one for n in range(rounds) for one in start_eight(batch, tmp_path / f"{n}", unbroken)]
    scorecard("R6", passed=not wrong, figure=f"8 starts x {rounds}, {len(wrong)} wrong")
    assert wrong == []


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_eight_that_start_while_the_ninth_was_killed_end_with_one_manifest(
    batch, unbroken, tmp_path, kills, killing
):
    for number in range(kills):
        output = tmp_path / f"{number}"
        assert batch(output, kill_at=killing.random.randrange(10, 60)) == [KILLED]
        assert start_eight(batch, output, unbroken) == []


class Boom(Exception):
    """What goes wrong in the middle of writing."""


def table(rows: int) -> pa.Table:
    return pa.table({"row": range(rows), "prediction": [0.5] * rows})


def write_failing(output: str, point: int, monkeypatch) -> None:
    """Write a shard in which the ``point``-th thing that is done raises."""
    done = []

    def step() -> None:
        done.append(None)
        if len(done) == point:
            raise Boom

    real = _HashedFile.write
    monkeypatch.setattr(_HashedFile, "write", lambda self, data: (step(), real(self, data))[1])
    with ShardWriter(output, "a") as writer:
        for _ in range(4):
            step()
            writer.add(predicted=table(100), rejected=table(3))
    monkeypatch.undo()


def test_an_exception_at_any_point_of_writing_publishes_nothing(tmp_path, monkeypatch, scorecard):
    visible = {}
    for point in range(1, 40):
        output = tmp_path / f"{point}"
        try:
            write_failing(str(output), point, monkeypatch)
        except Boom:
            monkeypatch.undo()
            visible[point] = files(output)
    figure = (
        f"an exception at each of {len(visible)} points, {sum(map(len, visible.values()))} objects"
    )
    scorecard("R9", passed=len(visible) >= 10 and not any(visible.values()), figure=figure)
    assert len(visible) >= 10
    assert not any(visible.values())


def test_a_plain_writer_publishes_half_a_file_when_an_exception_passes(tmp_path):
    fs = fsspec.filesystem("file")
    with contextlib.suppress(Boom), fs.open(str(tmp_path / "part.parquet"), "wb") as file:
        file.write(b"x" * 5_000)
        raise Boom
    assert files(tmp_path) == ["part.parquet"]


def starve(batch, output: Path, **limit: object) -> list[str]:
    """Run a batch without room; what is wrong."""
    before = recorded_shards(str(output))
    starved = batch.ask(output, **limit)
    wrong = []
    if starved["codes"] == [lean.COMMITTED] and commit.read_manifest(str(output)) is None:
        wrong.append("a commit was told that is not there")
    if starved["codes"] != [lean.COMMITTED] and "DiskFull" not in starved.get("error", ""):
        wrong.append(f"it said {starved}")
    if commit.read_manifest(str(output)) and read(output) is None:
        wrong.append("what was committed cannot be read")
    if not before <= recorded_shards(str(output)):
        wrong.append("a finished shard is gone")
    return wrong


@pytest.mark.parametrize("points", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_a_full_disk_damages_nothing_and_the_run_goes_on_when_there_is_room(
    batch, unbroken, tmp_path, points, killing, scorecard
):
    wrong = []
    for number in range(points):
        output = tmp_path / f"{number}"
        largest = killing.random.randrange(1, 5_000)
        wrong += starve(batch, output, file_bytes=largest)
        batch(output)
        if commit.read_manifest(str(output)).digest != unbroken.digest:
            wrong.append(f"with files of {largest} bytes at most it did not resume")
    scorecard(
        "R20", passed=not wrong, figure=f"{points} points, {len(wrong)} wrong", seed=killing.seed
    )
    assert wrong == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB that is nothing but memory; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.soak
def test_a_disk_that_is_really_full_damages_nothing_of_what_was_committed_before(
    batch, unbroken, small_disk, killing, scorecard
):
    before, wrong = small_disk / "before", []
    batch(before)
    ballast = small_disk / "ballast"
    for number in range(20):
        room = killing.random.randrange(0, 120_000)
        fill(ballast, small_disk, room)
        output = small_disk / f"{number}"
        wrong += starve(batch, output)
        if read(before) is None or commit.read_manifest(str(before)).digest != unbroken.digest:
            wrong.append("what was committed before is damaged")
        ballast.unlink()
        batch(output)
        if commit.read_manifest(str(output)).digest != unbroken.digest:
            wrong.append(f"with {room} bytes of room it did not resume")
    scorecard(
        "R20", passed=not wrong, figure=f"20 full disks, {len(wrong)} wrong", seed=killing.seed
    )
    assert wrong == []


def fill(ballast: Path, disk: Path, room: int) -> None:
    """Fill a disk up to ``room`` bytes."""
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - room, 1))
