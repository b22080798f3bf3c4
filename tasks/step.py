"""``@step``: a Prefect task as Headrace wants it.

Retried only for what may heal, never cached by its inputs, its result never written as a pickle.
A step takes references and small values, and its docstring says why it is safe to run twice.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from tasks.clusters.retries import may_heal

Result = TypeVar("Result")


async def transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """True if the failure in ``state`` may heal by itself."""
    failure = await state.aresult(raise_on_failure=False)
    return isinstance(failure, BaseException) and may_heal(failure)


def step(name: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make a function a task whose runs are called ``name``; ``{argument}`` is filled in."""
    return task(
        task_run_name=name,
        retries=2,
        retry_delay_seconds=[2, 10],
        retry_condition_fn=transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
