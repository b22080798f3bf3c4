"""A cluster that somebody else keeps running, reached by its address; shared by these tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.settings import Settings
from tasks.clusters import Call, Needs, cluster
from tasks.clusters.config import Address
from tasks.clusters.dask_settings import DASK_SETTINGS
from tasks.clusters.errors import ClusterTooSmall, ClusterUnreachable, WorkerUnfit
from tests.tasks.clusters import work
from tests.tasks.clusters.supervised import QUIET, Supervised

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    with Supervised(tmp_path_factory.mktemp("others"), workers=1) as others:
        yield others


@pytest.fixture
def settings(tmp_path, others):
    return Settings(home=tmp_path, cluster=others.address)


def test_it_is_used_and_left_running(settings):
    for _ in range(2):
        with cluster(settings) as compute:
            assert (compute.kind, compute.workers, compute.slots) == ("address", 1, 1)
            assert [done.result for done in compute.run([Call("a", work.double, (4,))])] == [8]


def test_what_its_workers_lack_is_told_before_any_work(settings):
    needs = Needs(gpu=True, memory=4 * 2**30)
    with pytest.raises(ClusterTooSmall) as told, cluster(settings, needs=needs):
        pass
    assert "0 of its 1 workers have one" in str(told.value)
    assert "it has 1.00 GiB" in str(told.value)


STRANGER = """
import sys
sys.path[:] = [{folder!r}, *(path for path in sys.path if "site-packages" not in path and path)]
from dask.__main__ import main
sys.argv[1:] = {arguments!r}
main()
"""


def without_headrace(folder: Path) -> Path:
    """A folder with every installed package but Headrace."""
    site = Path(pytest.__file__).parent.parent
    for package in site.iterdir():
        if "headrace" not in package.name:
            (folder / package.name).symlink_to(package)
    return folder


def test_a_worker_without_headrace_is_named_with_the_remedy(others, settings, tmp_path):
    arguments = ["worker", others.address, "--no-dashboard", "--no-nanny", "--nthreads", "1"]
    arguments += ["--local-directory", str(tmp_path / "scratch")]
    folder = tmp_path / "site"
    folder.mkdir()
    script = STRANGER.format(folder=str(without_headrace(folder)), arguments=arguments)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | QUIET
    ) as stranger:
        try:
            with (
                pytest.raises(WorkerUnfit, match="has no Headrace, but this process has headrace"),
                cluster(settings, needs=Needs(workers=2)),
            ):
                pass
        finally:
            stranger.send_signal(signal.SIGKILL)


def test_an_address_where_nobody_answers_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(DASK_SETTINGS, "distributed.comm.timeouts.connect", "300ms")
    config = Address(name="lab", address="tcp://127.0.0.1:1")
    with (
        pytest.raises(ClusterUnreachable, match=r"tcp://127\.0\.0\.1:1"),
        cluster(Settings(home=tmp_path), config=config),
    ):
        pass
