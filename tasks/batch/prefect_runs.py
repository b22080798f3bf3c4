"""What Prefect believes of a run, and how to tell it better.

Prefect hears of a run's end from the run's own process. Where that was killed, its flow run and
task runs stay *running* until somebody else says what happened.
"""

from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

Belief = Literal["going on", "crashed", "over"]

_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.PAUSED]


def belief(flow_run: str) -> Belief:
    """What Prefect believes of a flow run. One that was deleted there is over."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run)).state
        except ObjectNotFound:
            return "over"
    if state is None or not state.is_final():
        return "going on"
    return "crashed" if state.is_crashed() else "over"


def mark_crashed(flow_run: str, message: str) -> None:
    """Tell Prefect that a flow run's process is dead: the run, its tasks, and the flows in it."""
    with get_client(sync_client=True) as client:
        _mark_crashed(client, UUID(flow_run), Crashed(message=message))


def _mark_crashed(client: SyncPrefectClient, flow_run: UUID, crashed: State[Any]) -> None:
    inside = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
    )
    for child in client.read_flow_runs(flow_run_filter=inside):
        _mark_crashed(client, child.id, crashed)
    for task_run in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNFINISHED))
        ),
    ):
        client.set_task_run_state(task_run.id, crashed, force=True)
    client.set_flow_run_state(flow_run, crashed, force=True)


def run_deployment_again(deployment: str, config: dict[str, Any], *, key: str) -> None:
    """Ask for a run of a deployment; asked twice with the same ``key``, Prefect makes one.

    Raises:
        ObjectNotFound: if the deployment is gone.
    """
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            UUID(deployment),
            parameters={"config": config},
            idempotency_key=key,
            state=Scheduled(message="its run before was killed"),
        )
