"""Everything in prefect.yaml on a Prefect server, and when each of it runs next."""

import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from headrace.errors import HeadraceError, UsageError
from headrace.spec import Part

WORK_POOL = "headrace"


class NoProjectHere(UsageError):
    """A working folder without a prefect.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"there is no prefect.yaml in {folder}; run this in the project's folder.")


class DeployFailed(HeadraceError):
    """The Prefect command that deploys did not succeed."""

    def __init__(self, command: str, log: Path) -> None:
        self.command, self.log = command, log
        super().__init__(f"`{command}` failed; its output is in {log}.")


class Planned(Part):
    """A deployment and its next run."""

    name: str
    is_scheduled: bool
    next_run: datetime | None
    """None where nothing is planned: without a schedule, or not planned by the server yet."""


def deploy_all(folder: Path, environment: Mapping[str, str], *, log: Path) -> None:
    """Create the work pool and deploy everything in ``folder/prefect.yaml``. Safe to run twice.

    Runs that were due while nothing worked are forgotten by it: Prefect plans afresh, from now on.

    Raises:
        NoProjectHere: if there is no prefect.yaml.
        DeployFailed: if Prefect refuses; its output is in ``log``.
    """
    if not (folder / "prefect.yaml").exists():
        raise NoProjectHere(folder)
    log.unlink(missing_ok=True)
    for arguments in (
        ["work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all"],
    ):
        with log.open("a") as output:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=folder,
                # prefect.yaml's pull step names the project's folder by this variable.
                env={**environment, "PWD": str(folder)},
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise DeployFailed(f"prefect {' '.join(arguments)}", log)


def planned(api_url: str) -> tuple[Planned, ...]:
    """Every deployment of a server: those with a next run first, in order of time."""
    waiting = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    )
    with (
        temporary_settings({PREFECT_API_URL: api_url}),
        get_client(sync_client=True) as client,
    ):
        deployments = client.read_deployments()
        # From last to first, so that the first one of a deployment stays.
        runs = client.read_flow_runs(
            flow_run_filter=waiting, sort=FlowRunSort.EXPECTED_START_TIME_DESC
        )
    first = {run.deployment_id: run.expected_start_time for run in runs if run.auto_scheduled}
    found = [
        Planned(
            name=deployment.name,
            is_scheduled=any(schedule.active for schedule in deployment.schedules),
            next_run=first.get(deployment.id),
        )
        for deployment in deployments
    ]
    return tuple(sorted(found, key=lambda one: (str(one.next_run or "never"), one.name)))


def next_runs(api_url: str, *, wait_seconds: float = 0.0) -> list[tuple[str, str]]:
    """What runs when, to be read by people; waits until the server has planned every schedule."""
    deadline = time.monotonic() + wait_seconds
    found = planned(api_url)
    while any(one.is_scheduled and not one.next_run for one in found):
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)  # the server plans new schedules every few seconds
        found = planned(api_url)
    scheduled = [f"{_moment(one.next_run)}  {one.name}" for one in found if one.is_scheduled]
    asked = [one.name for one in found if not one.is_scheduled]
    heads = ["next runs", *[""] * len(scheduled)]
    lines = list(zip(heads, scheduled, strict=False))
    return [*lines, ("when asked", ", ".join(asked))] if asked else lines


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "not planned yet     "
