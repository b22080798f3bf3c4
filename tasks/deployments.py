"""Everything in prefect.yaml on a Prefect server, and when each of it runs next."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings

from headrace.errors import HeadraceError, UsageError
from headrace.spec import Part

WORK_POOL = "headrace"
WORK_QUEUES = ("urgent", "normal", "low")
"""Of the pool, the first served first: a deployment's, or the one that a run is asked for with."""
_DEPLOY = ("--no-prompt", "deploy", "--all")


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


class PrefectUnreachable(HeadraceError):
    """A Prefect API that does not answer."""

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url
        super().__init__(
            f"no Prefect server answers at {api_url!r} (PREFECT_API_URL); start it, or unset the "
            "variable to use a local one."
        )


class Planned(Part):
    """A deployment and its next run."""

    name: str
    is_scheduled: bool
    next_run: datetime | None
    """None where nothing is planned: without a schedule, or not planned by the server yet."""


def deploy_all(folder: Path, environment: Mapping[str, str], *, log: Path) -> None:
    """Create the work pool and deploy everything in ``folder/prefect.yaml``. Safe to run twice.

    Raises:
        NoProjectHere: if there is no prefect.yaml.
        DeployFailed: if Prefect refuses; its output is in ``log``.
    """
    if not (folder / "prefect.yaml").exists():
        raise NoProjectHere(folder)
    _ensure_work_pool(environment["PREFECT_API_URL"])
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *_DEPLOY],
            cwd=folder,
            # prefect.yaml's pull step names the project's folder by this variable.
            env={**environment, "PWD": str(folder)},
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise DeployFailed(f"prefect {' '.join(_DEPLOY)}", log)


def _ensure_work_pool(api_url: str) -> None:
    from prefect.workers.process import ProcessWorker

    pool = WorkPoolCreate(
        name=WORK_POOL,
        type=ProcessWorker.type,
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    with _client(api_url) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(pool)
        for place, name in enumerate(WORK_QUEUES, start=1):
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_work_queue(name, work_pool_name=WORK_POOL, priority=place)


def planned(api_url: str) -> tuple[Planned, ...]:
    """Our deployments on a server: those with a next run first, in order of time."""
    with _client(api_url) as client:
        deployments, runs = client.read_deployments(), _waiting(client)
    # From last to first, so that the first one of a deployment stays.
    first = {run.deployment_id: run.expected_start_time for run in reversed(runs)}
    found = [
        Planned(
            name=deployment.name,
            is_scheduled=any(schedule.active for schedule in deployment.schedules),
            next_run=first.get(deployment.id),
        )
        for deployment in deployments
        if deployment.work_pool_name == WORK_POOL
    ]
    return tuple(sorted(found, key=lambda one: (str(one.next_run or "never"), one.name)))


def forget_missed(api_url: str) -> int:
    """Make up for missed runs once: drop all but the last of each deployment; return how many.

    A schedule that nobody worked on for a week leaves several overdue runs, and each would do what
    the last one does.
    """
    now = datetime.now(UTC)
    with _client(api_url) as client:
        planned_runs = [(run, run.expected_start_time) for run in _waiting(client)]
        overdue = [run for run, moment in planned_runs if moment and moment <= now]
        newest = {run.deployment_id: run.id for run in overdue}
        missed = [run.id for run in overdue if run.id != newest[run.deployment_id]]
        for run_id in missed:
            client.delete_flow_run(run_id)
    return len(missed)


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
    if moment is None:
        return "not planned yet     "
    overdue = moment < datetime.now(UTC)
    return "due now             " if overdue else f"{moment:%Y-%m-%d %H:%M} UTC"


@contextlib.contextmanager
def _client(api_url: str) -> Iterator[SyncPrefectClient]:
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise PrefectUnreachable(api_url) from error


def _waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs that our schedules have made and nobody has begun, in order of time."""
    scheduled = FlowRunFilterStateType(any_=[StateType.SCHEDULED])
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=scheduled)),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )
    return [run for run in runs if run.auto_scheduled and run.work_pool_name == WORK_POOL]
