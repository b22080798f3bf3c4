"""R5: kill -9 of the flow's process, which nobody tells Prefect; found, told and resumed once."""

import shutil
import time
from collections import Counter

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from headrace.settings import Settings
from tasks.batch import commit, running
from tasks.batch.liveness import is_dead
from tasks.batch.reaper import reap
from tests.faults.conftest import kill_at

RESUMED_WITHIN_SECONDS = 60


def believed(state: StateType) -> set[str]:
    """The ids of the batch runs that Prefect believes to be in a state."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["batch-predict"])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))
            ),
        )
    return {str(run.id) for run in runs}


def wait_for(what, *, seconds: float) -> float:
    """Wait until ``what()`` is true; how long that took."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)
    return time.monotonic() - begun


def resume(batch, point: int) -> tuple[float, list[str]]:
    """Kill a batch and reap; after how many seconds its work went on, and what is wrong."""
    settings = Settings(home=batch.home, lease_seconds=2)
    assert kill_at(batch.job, point, group=False)
    (zombie,) = {run.flow_run for run in running.runs(settings)} & believed(StateType.RUNNING)
    (reaped,) = reap(settings, watch=True)
    wrong = [] if reaped.outcome == "started again" else [f"{reaped.outcome}: {reaped.reason}"]
    if zombie not in believed(StateType.CRASHED):
        wrong.append("Prefect still believes it to be running")
    seconds = wait_for(lambda: running.runs(settings), seconds=RESUMED_WITHIN_SECONDS)
    wait_for(lambda: commit.read_manifest(batch.output), seconds=120)
    wait_for(lambda: not alive(settings), seconds=60)
    if reap(settings, watch=True):
        wrong.append("it was started again twice")
    if len(commit.history(batch.output)) != 1 or Counter(batch.read()) != Counter(batch.rows):
        wrong.append("what it resumed to is not the batch")
    return seconds, wrong


def alive(settings: Settings) -> list[running.Run]:
    """The runs that are written down and not dead."""
    return [run for run in running.runs(settings) if not is_dead(run.process)]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_a_killed_flow_crashed_for_prefect_and_goes_on_once(
    killing, batch, unkilled, kills, scorecard, monkeypatch
):
    monkeypatch.setenv("HEADRACE_LEASE_SECONDS", "2")
    before, longest, wrong = believed(StateType.RUNNING), 0.0, []
    for _ in range(kills):
        shutil.rmtree(batch.output, ignore_errors=True)
        (point,) = killing.points(batch.shards - 2, 1)
        seconds, found = resume(batch, point)
        longest, wrong = max(longest, seconds), wrong + found
        if commit.read_manifest(batch.output).digest != unkilled.digest:
            wrong.append("its digest is not that of the unbroken run")
    left = believed(StateType.RUNNING) - before
    figure = f"{kills} kills, resumed within {longest:.1f} s, {len(left)} runs left running"
    scorecard("R5", passed=not wrong and not left, figure=figure, seed=killing.seed)
    assert wrong == []
    assert not left
