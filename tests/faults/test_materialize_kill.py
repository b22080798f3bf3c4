"""kill -9 of a materialisation after a random number of bytes, then the same one once more."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore.catalog import load_catalog
from featurestore.materialize import materialize
from headrace.settings import Settings

EARLIER, LATER = datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 3, 15, tzinfo=UTC)

_MATERIALIZE = """
import sys
from datetime import datetime
from pathlib import Path
from featurestore.catalog import load_catalog
from featurestore.materialize import materialize
from headrace.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
catalog = load_catalog(settings)
print("ready", flush=True)
materialize(settings, catalog, until=datetime.fromisoformat(sys.argv[2]))
"""


def start(settings):
    """Start a materialisation until LATER; it has read what it needs to begin."""
    command = [sys.executable, "-c", _MATERIALIZE, str(settings.home), LATER.isoformat()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def written(process):
    """How many bytes a process has written."""
    try:
        lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def run_until(settings, bytes_written):
    """Run a materialisation, kill it there, and say whether it was still at work."""
    with start(settings) as process:
        while written(process) < bytes_written and process.poll() is None:
            time.sleep(0.0002)
        killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
    return killed


def most_written(settings):
    """How many bytes an unkilled materialisation writes."""
    most = 0
    with start(settings) as process:
        while process.poll() is None:
            most = max(most, written(process))
            time.sleep(0.0005)
    assert process.returncode == 0
    return most


def contents(settings):
    """Every row of every view, and how far each reaches; by table."""
    with sqlite3.connect(settings.online_path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        views = [read.view for read in load_catalog(settings).views]
        columns = "entity_key, feature_name, value, event_us, created_us"
        rows = {
            view: db.execute(f'SELECT {columns} FROM "headrace_{view}" ORDER BY 1, 2').fetchall()
            for view in views
        }
        reached = dict(db.execute("SELECT view, until_us FROM headrace_views"))
    return {view: (reached.get(view), rows[view]) for view in views}


def empty_store(settings):
    for suffix in ("", "-wal", "-shm"):
        Path(f"{settings.online_path}{suffix}").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def before(trained_home, tmp_path_factory):
    """A home materialised until EARLIER."""
    home = tmp_path_factory.mktemp("materialised") / "home"
    shutil.copytree(trained_home, home)
    settings = Settings(home=home)
    empty_store(settings)
    materialize(settings, load_catalog(settings), until=EARLIER)
    return settings


@pytest.fixture(scope="module")
def after(before, tmp_path_factory):
    """The same, materialised until LATER by a process that nobody killed, and what it wrote."""
    settings = a_copy(before, tmp_path_factory.mktemp("after"))
    return contents(settings), most_written(settings), contents(settings)


def a_copy(settings, folder):
    home = folder / "home"
    shutil.copytree(settings.home, home, ignore=shutil.ignore_patterns("bundles", "fits"))
    return Settings(home=home)


@pytest.mark.slow
def test_a_killed_materialisation_leaves_each_view_old_or_new_and_is_made_good_by_the_next(
    before, after, killing, tmp_path
):
    old, bytes_written, new = after
    assert old != new
    points = sorted(killing.random.sample(range(1, bytes_written), 8))
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = a_copy(before, folder)
        killing.kills += run_until(settings, point)
        left = contents(settings)
        assert all(left[view] in (old[view], new[view]) for view in new)
        materialize(settings, load_catalog(settings), until=LATER)
        assert contents(settings) == new
        materialize(settings, load_catalog(settings), until=EARLIER)
        assert contents(settings) == new
    assert killing.kills >= 6
