"""Runs that were killed: known by their heartbeats, told to Prefect, started again once."""

import subprocess
import sys
import threading
import time
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, Running
from pydantic import BaseModel

from flows.batch_predict import BatchPredictConfig, main
from headrace import storage
from headrace.sealed import seal
from headrace.settings import Settings
from tasks.batch import reaper, running
from tasks.batch.liveness import ENDED, this_process
from tasks.batch.reaper import MOST_ATTEMPTS, reap


class Config(BaseModel):
    """What a run was asked for."""

    model: str = "none"
    allow_empty: bool = False
    keep: tuple[str, ...] | None = None


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, lease_seconds=0.5)


@pytest.fixture
def started(monkeypatch):
    """The arguments of each process that a reaper starts; none is really started."""
    found = []
    monkeypatch.setattr(
        reaper.background, "start", lambda arguments, environment, *, log: found.append(arguments)
    )
    return found


@pytest.fixture
def dead(settings):
    """Writes down a run whose process is dead, as it was when it was killed."""

    def write(**fields):
        with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
            process = this_process().model_copy(update={"pid": child.pid})
        facts = {
            "id": f"run{len(running.runs(settings))}",
            "module": "flows.batch_predict",
            "config": {"model": "flight_delay"},
            "flow_run": None,
            "deployment": None,
            "folder": str(settings.home),
            "process": process,
            "seconds": 0.5,
            "attempt": 0,
        }
        run = running.Run(**facts | fields)
        storage.write_atomic(running.entry_uri(settings, run.id), seal(run))
        return run

    return write


@pytest.fixture
def killed_in_prefect(prefect_api):
    """A flow in a flow that Prefect believes to be running, with a task: (outer, inner, task)."""

    @flow(name="inner")
    def inner() -> None:
        stop()

    @task(name="stop")
    def stop() -> None:
        ids.append(str(task_run.id))
        ids.append(flow_run.id)

    @flow(name="outer")
    def outer() -> None:
        ids.append(flow_run.id)
        inner()

    ids = []
    outer()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(ids[0]), Running(), force=True)
        client.set_task_run_state(UUID(ids[1]), Running(), force=True)
        client.set_flow_run_state(UUID(ids[2]), Running(), force=True)
    return ids


@pytest.fixture
def prefect_run(prefect_api):
    """A flow run that Prefect believes to be running, with a task run; its id."""

    @flow(name="nothing")
    def nothing(config: dict) -> None: ...

    def make():
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(nothing, parameters={"config": {}}, state=Running())
            return str(run.id)

    return make


def state_of(run_id):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run_id)).state.type


def test_a_run_is_written_down_as_long_as_it_runs(settings, started):
    config = Config(model="flight_delay")
    with running.registered(settings, module="flows.batch_predict", config=config) as run:
        assert running.runs(settings) == [run]
        assert run.arguments == ["-m", "flows.batch_predict", "--model", "flight_delay"]
        assert reap(settings) == ()
        assert reap(settings, watch=True) == ()
    assert running.runs(settings) == []
    assert started == []


def test_a_killed_run_is_started_again_once_by_whoever_finds_it(settings, dead, started):
    dead(config={"model": "flight_delay", "keep": ["a", "b"], "allow_empty": True})
    reaped, barrier = [], threading.Barrier(8)

    def look():
        barrier.wait()
        reaped.extend(reap(settings))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.outcome for one in reaped] == ["started again"]
    (arguments,) = started
    assert arguments[2:] == ["--allow-empty", "--keep", '["a", "b"]', "--model", "flight_delay"]
    assert running.runs(settings) == []


def test_a_reaper_that_died_is_followed_by_another(settings, dead, started, monkeypatch):
    dead()
    monkeypatch.setattr(reaper, "_start_again", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reap(settings)
    monkeypatch.undo()
    monkeypatch.setattr(
        reaper.background, "start", lambda arguments, environment, *, log: started.append(arguments)
    )
    assert [one.outcome for one in reap(settings)] == ["started again"]
    assert len(started) == 1


def test_what_dies_again_and_again_is_given_up(settings, dead, started):
    for attempt in range(MOST_ATTEMPTS):
        run = dead(attempt=attempt)
        assert [one.outcome for one in reap(settings)] == ["started again"]
        assert running.attempts(settings, run) == attempt + 1
    dead(attempt=MOST_ATTEMPTS)
    (given_up,) = reap(settings)
    assert given_up.outcome == "given up"
    assert f"died {MOST_ATTEMPTS + 1} times" in given_up.reason
    assert len(started) == MOST_ATTEMPTS


def test_an_attempt_that_ends_in_good_order_is_no_reason_to_give_up_later(settings, dead, started):
    run = dead()
    reap(settings)
    config = Config(model="flight_delay")
    with running.registered(settings, module="flows.batch_predict", config=config) as again:
        assert (again.key, again.attempt) == (run.key, 1)
    assert running.attempts(settings, run) == 0


def test_a_run_of_another_machine_is_dead_when_its_heart_stood_still(settings, dead, started):
    far = this_process().model_copy(update={"boot": "another"})
    run = dead(process=far)
    assert reap(settings) == ()
    stop = threading.Event()

    def beat():
        for count in range(10_000):
            storage.write_atomic(f"{settings.uri('running')}/{run.id}.beat", b"%d" % count)
            if stop.wait(0.1):
                return

    beating = threading.Thread(target=beat)
    beating.start()
    assert reap(settings, watch=True) == ()
    stop.set()
    beating.join()
    assert [one.run for one in reap(settings, watch=True)] == [run]


def test_prefect_is_told_that_a_killed_run_crashed(settings, dead, started, prefect_run):
    run_id = prefect_run()
    dead(flow_run=run_id)
    assert [one.outcome for one in reap(settings)] == ["started again"]
    assert state_of(run_id) == StateType.CRASHED


def test_what_is_inside_a_killed_flow_crashed_with_it(settings, dead, started, killed_in_prefect):
    outer, stopped, inner = killed_in_prefect
    dead(flow_run=outer)
    reap(settings)
    assert [state_of(outer), state_of(inner)] == [StateType.CRASHED] * 2
    with get_client(sync_client=True) as client:
        assert client.read_task_run(UUID(stopped)).state.type == StateType.CRASHED


def test_a_flow_inside_a_run_is_part_of_it(settings):
    with running.registered(settings, module="flows.backfill", config=Config()) as outer:
        with running.registered(settings, module="flows.batch_predict", config=Config()) as inner:
            assert inner == outer
        assert running.runs(settings) == [outer]
    assert running.runs(settings) == []


def test_a_run_that_somebody_ended_in_prefect_is_not_started_again(
    settings, dead, started, prefect_run
):
    run_id = prefect_run()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Completed(), force=True)
    dead(flow_run=run_id)
    assert reap(settings) == ()
    assert running.runs(settings) == []
    assert started == []


def test_a_run_that_ended_is_forgotten_once_prefect_knows(settings, dead, started, prefect_run):
    run_id = prefect_run()
    run = dead(flow_run=run_id, process=this_process())
    storage.write_atomic(f"{settings.uri('running')}/{run.id}.beat", ENDED)
    assert reap(settings) == ()
    assert running.runs(settings) == [run]  # its process lives: it is about to tell
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Completed(), force=True)
    assert reap(settings) == ()
    assert running.runs(settings) == []
    assert started == []


def test_a_run_of_a_deployment_goes_back_to_its_work_pool_once(
    settings, dead, started, prefect_run, prefect_api
):
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("nothing")
        deployment = client.create_deployment(flow_id, name=f"nothing {time.time_ns()}")
    run = dead(flow_run=prefect_run(), deployment=str(deployment))
    assert [one.outcome for one in reap(settings)] == ["started again"]
    storage.write_atomic(running.entry_uri(settings, run.id), seal(run))  # a reaper that died late
    reap(settings)
    with get_client(sync_client=True) as client:
        runs = [one for one in client.read_flow_runs() if one.deployment_id == deployment]
    assert [one.parameters for one in runs] == [{"config": {"model": "flight_delay"}}]
    assert started == []


def test_a_prefect_that_is_away_costs_nothing_but_time(settings, dead, started, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    run = dead(flow_run="00000000-0000-4000-8000-000000000000")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert reap(settings) == ()
    assert running.runs(settings) == [run]
    assert started == []


def test_the_command_line_of_a_run_makes_the_same_run(settings, monkeypatch):
    config = BatchPredictConfig(
        input="some where/x.parquet",
        format="csv",
        bundle="d" * 64,
        keep=("a", "b c"),
        max_rejected="1%",
        allow_empty=True,
        rows_per_shard=7,
        budget=0.5,
    )
    with running.registered(settings, module="flows.batch_predict", config=config) as run:
        arguments = run.arguments
    parsed = []
    monkeypatch.setattr("flows._command.run_reporting", lambda _, config, __: parsed.append(config))
    with pytest.raises(AttributeError):  # there is no report to print
        main(arguments[2:])
    assert parsed == [config]
