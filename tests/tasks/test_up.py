"""`make up` as a person uses it: the real command, a real worker, and the pages in a browser."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
import yaml
from packaging.version import Version
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from headrace.settings import Settings
from tasks import background, deployments, prefect_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WRITTEN = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
SCHEDULES = {d["name"]: d["schedules"][0]["cron"] for d in WRITTEN if "schedules" in d}


def command(what, home):
    return subprocess.run(
        [sys.executable, "-m", "tasks.prefect_server", what],
        cwd=ROOT,
        env=os.environ | {"HEADRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture(scope="module")
def home(sample_home, prefect_api, tmp_path_factory):
    """A home with sample tables whose worker runs what the suite's server is asked for."""
    home = tmp_path_factory.mktemp("up") / "home"
    shutil.copytree(sample_home, home)
    done = command("up", home)
    assert done.returncode == 0, done.stderr
    yield home
    command("down", home)


@pytest.fixture
def client(prefect_api):
    with deployments._client(prefect_api) as client:
        yield client


def ask_for(client, name, **config):
    deployment = client.read_deployment_by_name(f"{name}/{name}")
    run = client.create_flow_run_from_deployment(deployment.id, parameters={"config": config})
    return run.id


def wait_for(client, run_id, reached, *, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = client.read_flow_run(run_id)
        if reached(run.state):
            return run
        time.sleep(0.2)
    raise AssertionError(f"{run.name} is {run.state} after {seconds} s")


def wait_for_log(client, run_id, message, *, seconds=30):
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        logs = [log.message for log in client.read_logs(of_run)]
        if message in logs:
            return
        time.sleep(0.2)
    raise AssertionError(f"{message!r} is not among {logs}")


def test_every_deployment_is_there_as_it_is_written(home, client):
    found = {d.name: d for d in client.read_deployments()}
    assert {name for name, d in found.items() if d.work_pool_name == deployments.WORK_POOL} == {
        written["name"] for written in WRITTEN
    }
    for written in WRITTEN:
        deployment = found[written["name"]]
        assert deployment.description == written["description"]
        crons = [s.schedule.cron for s in deployment.schedules if s.active]
        assert crons == [s["cron"] for s in written.get("schedules", [])]
        assert deployment.pull_steps[0].popitem()[1] == {"directory": str(ROOT)}


def test_the_form_of_a_deployment_tells_what_each_parameter_is(home, client):
    schema = client.read_deployment_by_name("batch-predict/batch-predict").parameter_openapi_schema
    (fields,) = [d["properties"] for d in schema["definitions"].values()]
    assert "rows_per_shard" in fields
    assert all(field["description"] for field in fields.values())


@pytest.mark.skipif(
    Version(sqlalchemy.__version__) >= Version("2.1"),
    reason="Prefect 3.8.8 plans nothing with this SQLAlchemy; install requirements.lock",
)
def test_every_schedule_has_a_next_run_at_its_hour(home, prefect_api):
    deployments.next_runs(prefect_api, wait_seconds=30)
    planned = {p.name: p.next_run for p in deployments.planned(prefect_api) if p.is_scheduled}
    for name, cron in SCHEDULES.items():
        run = planned[name]
        fields = zip(cron.split(), (run.minute, run.hour, run.day), strict=False)
        assert all(asked in ("*", str(found)) for asked, found in fields), (name, run)


def test_a_run_asked_for_works_in_the_home_and_leaves_its_log(home, client):
    run_id = ask_for(client, "materialize", until="2013-02-01")
    run = wait_for(client, run_id, lambda state: state.is_final())
    assert run.state.is_completed(), run.state
    assert run.name == "materialize until 2013-02-01"
    assert (home / "online.db").exists()
    wait_for_log(client, run_id, "Finished in state Completed()")


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_the_page_of_deployments_shows_them_all(home, prefect_api, tmp_path):
    picture = tmp_path / "deployments.png"
    dom = subprocess.run(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"),
            *("--virtual-time-budget=15000", f"--screenshot={picture}", "--dump-dom"),
            f"{prefect_api.removesuffix('/api')}/v2/deployments?limit=50",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert [d["name"] for d in WRITTEN if f">{d['name']}<" not in dom] == []
    assert picture.stat().st_size > 10_000


def test_up_again_keeps_the_worker(home, capfd):
    before = prefect_server.kept_worker(Settings(home=home))
    done = command("up", home)
    assert prefect_server.kept_worker(Settings(home=home)) == before
    assert f"process {before.pid}" in done.stdout


def test_up_outside_a_project_says_so(tmp_path, prefect_api, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    assert prefect_server.main(["up"]) == 2
    assert f"there is no prefect.yaml in {tmp_path}" in capsys.readouterr().err


def test_down_ends_the_worker_and_what_it_runs(home, client):
    # The last test of this file: nothing works on what is asked for from here on.
    run_id = ask_for(client, "train", model="flight_delay")
    wait_for(client, run_id, lambda state: state.is_running())
    worker = prefect_server.kept_worker(Settings(home=home))
    family = background._family(worker.pid)
    assert len(family) > 1
    assert command("down", home).stdout == "stopped\n"
    assert not family & background._processes().keys()
    assert not client.read_flow_run(run_id).state.is_completed()
    assert command("down", home).stdout == "no local Prefect server was running\n"
