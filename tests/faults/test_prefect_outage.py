"""Prefect away in the middle of a run: it is down, answers 500, or its database's disk is full.

R7 of the reliability table. The outage begins at a count of recorded shards, and lasts beyond the
end of the work, so that the run's end is reported into it.
"""

import json
import resource
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.events.worker import EventsWorker
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import _reporting
from flows._command import FlowConfig, FlowReport, run
from headrace.errors import HeadraceError
from tasks import background
from tasks.batch.commit import commit, read_manifest
from tasks.batch.lease import held
from tasks.clusters.compute import Here
from tasks.step import step
from tests.faults import shard_work
from tests.faults.proxy import Fault, FaultProxy

SHARDS = 12

pytestmark = pytest.mark.slow


class OutageConfig(FlowConfig):
    output: str
    name: str
    fails: bool = False


class OutageReport(FlowReport):
    digest: str


@step("score {number}")
def score_one(output: str, number: int):
    get_run_logger().info("shard %s", number)
    return Here().submit(shard_work.write, output, number, 0.02).result()


@step("commit")
def commit_all(output: str, records: list):
    with held(output, owner="a test", seconds=2) as lease:
        return commit(
            output,
            lease=lease,
            run="0a1b",
            model="flight_delay",
            bundle="0" * 64,
            input="a table",
            rows=SHARDS * shard_work.ROWS,
            shards=records,
        )


class Broken(HeadraceError):
    pass


def _name():
    from prefect.runtime import flow_run

    return flow_run.parameters["config"].name


@flow(name="outage", flow_run_name=_name)
def outage(config: OutageConfig) -> OutageReport:
    records = [score_one(config.output, number) for number in range(SHARDS)]
    if config.fails:
        raise Broken("the data is bad")
    return OutageReport(digest=commit_all(config.output, records).digest)


@pytest.fixture
def proxy(prefect_api):
    with FaultProxy(prefect_api.removesuffix("/api")) as proxy:
        yield proxy
        # What Prefect's threads have yet to say goes through the proxy too.
        APILogWorker.drain_all(timeout=20)
        EventsWorker.drain_all(timeout=20)


def down(proxy, seconds):
    """Nobody listens."""
    proxy.pause()
    time.sleep(seconds)
    proxy.resume()


def broken(proxy, seconds):
    """Every request is answered 500."""
    with proxy.failing(Fault("500")):
        time.sleep(seconds)


def full(proxy, seconds):
    """The server's database cannot grow: what its process writes beyond a page is refused."""
    with urllib.request.urlopen(f"{proxy.url}/api/admin/settings") as reply:
        home = Path(json.load(reply)["home"])
    pid = background.recorded(home, "server").pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    time.sleep(seconds)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


OUTAGES = {"down": down, "broken": broken, "full": full}


class Outage(threading.Thread):
    """Takes Prefect away when some shards are recorded."""

    def __init__(self, what, proxy, output, point, seconds):
        super().__init__(daemon=True)  # a test that fails before it begins does not wait
        self.what, self.proxy, self.output = what, proxy, output
        self.point, self.seconds, self.over = point, seconds, 0.0

    def run(self):
        while shard_work.recorded(self.output) < self.point:
            time.sleep(0.005)
        OUTAGES[self.what](self.proxy, self.seconds)
        self.over = time.monotonic()


def told(prefect_api, name):
    """What Prefect says of the run of that name: its state, and those of its tasks."""
    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        (found,) = client.read_flow_runs(flow_run_filter=wanted)
        tasks = client.read_task_runs(flow_run_filter=wanted)
    return found.state_name, Counter(task.state_name for task in tasks)


@pytest.fixture
def survive(proxy, prefect_api, tmp_path, monkeypatch, capsys, scorecard):
    """Runs the flow through an outage; holds what it printed and what Prefect says of it."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))

    def survive(what, seconds):
        name = f"{what}-{time.time_ns()}"
        output = str(tmp_path / name / "output")
        fault = Outage(what, proxy, output, point=3, seconds=seconds)
        with temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
            fault.start()
            code = run(outage, OutageConfig, ["--output", output, "--name", name, "--json"])
        fault.join()
        printed = json.loads(capsys.readouterr().out)
        while (found := told(prefect_api, name))[0] != "Completed":
            assert time.monotonic() < fault.over + 60, f"Prefect says {found} a minute later"
            time.sleep(0.2)
        reconciled = max(time.monotonic() - fault.over, 0.0)
        manifest = read_manifest(output)
        assert manifest is not None
        assert (code, printed) == (0, {"digest": manifest.digest})
        scorecard(
            "R7",
            passed=True,
            figure=f"{what} for {seconds:g} s: committed, state right {reconciled:.1f} s after",
            tasks=found[1],
        )

    return survive


@pytest.mark.parametrize("what", OUTAGES)
def test_a_run_commits_and_its_state_is_right_although_prefect_was_away(what, survive):
    survive(what, 1.5)


@pytest.mark.soak
@pytest.mark.parametrize("repeat", range(7))
@pytest.mark.parametrize(("what", "seconds"), [("down", 30), ("broken", 30), ("full", 10)])
def test_half_a_minute_without_prefect_costs_no_run(what, seconds, repeat, survive):
    survive(what, seconds)


@pytest.fixture
def impatient(monkeypatch):
    """Prefect's client does not try again, and neither do we for long."""
    monkeypatch.setattr(_reporting, "PATIENCE_SECONDS", 0.2)
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_cannot_be_reported_says_so_and_ends_as_it_ended(
    impatient, proxy, tmp_path, monkeypatch, capsys, fails
):
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    output = str(tmp_path / "run" / "output")
    fault = Outage("broken", proxy, output, point=3, seconds=3)
    arguments = ["--output", output, "--name", "unheard", "--json", *(["--fails"] * fails)]
    with temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
        fault.start()
        code = run(outage, OutageConfig, arguments)
    fault.join()
    written = capsys.readouterr()
    assert "could not be told that this run has ended" in written.err
    if fails:
        assert (code, written.out) == (1, "")
        assert "error: the data is bad" in written.err
    else:
        manifest = read_manifest(output)
        assert manifest is not None
        assert (code, json.loads(written.out)) == (0, {"digest": manifest.digest})


def test_a_run_that_finds_nobody_to_report_to_does_not_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    output = str(tmp_path / "run" / "output")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        code = run(outage, OutageConfig, ["--output", output, "--name", "alone"])
    assert code == 1
    assert "error: no Prefect server answers at 'http://127.0.0.1:1/api'" in capsys.readouterr().err
    assert not Path(output).exists()
