"""Where calls run: what a flow sees of a cluster, whatever kind it is.

``run`` is what work of many pieces wants: a few calls a worker are under way at a time, what may
heal is tried again, dead workers and a lost scheduler cost only the calls they were working on. A
call must be safe to run twice: it may be, and it is cheap where its result is recorded.
"""

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.clusters.priorities import Priority
from tasks.clusters.retries import wait_to_try_again


@dataclass(frozen=True)
class Call:
    """A function of an importable module and its arguments, all small: addresses, not rows."""

    key: str
    """Its name in logs and errors, ``<run>-<shard>``; the same call has the same key."""
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of a call."""

    key: str
    result: Any = None
    error: Exception | None = None
    """Why it failed for good; None if it did not."""
    attempts: int = 1


class Future(Protocol):
    """What ``submit`` gives: Dask's future, or one of Python's own."""

    def result(self) -> Any:
        """The call's result; waits for it, and raises what the call raised."""

    def done(self) -> bool:
        """True if it has one, or has failed."""


class Compute(Protocol):
    """A place that runs calls."""

    name: str
    kind: str

    @property
    def workers(self) -> int:
        """How many workers there are now."""

    @property
    def slots(self) -> int:
        """How many calls can run at once."""

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        priority: Priority = "normal",
    ) -> Future:
        """Hand over one call, for work of a few pieces; ``run`` is for many."""

    def as_completed(self, futures: Iterable[Any]) -> Iterator[Any]:
        """The futures as they finish."""

    def run(
        self,
        calls: Iterable[Call],
        *,
        priority: Priority = "normal",
        began: Callable[[str], None] | None = None,
    ) -> Iterator[Done]:
        """Run every call and give what became of each, as they finish.

        After a call has failed for good no new one is begun; those under way are finished and
        given, so that what they recorded counts. Leaving the loop early lets go of the rest.

        Args:
            calls: read as they are needed.
            priority: which of several jobs on a shared scheduler goes first.
            began: told a call's key when it is handed to a worker (again, after a retry).

        Raises:
            ClusterLost, ClusterUnreachable: if the scheduler cannot be had any more.
            WorkerUnfit: if a worker appears that cannot run our code.
        """


class Here:
    """The process itself: for work so small that starting workers would cost more than it."""

    name, kind, workers, slots = "here", "here", 1, 1

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,  # noqa: ARG002  (as on a cluster)
        priority: Priority = "normal",  # noqa: ARG002  (there is nobody to overtake)
    ) -> Future:
        """Run the call now."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*args))
        except Exception as error:  # noqa: BLE001  (it is raised where the result is asked for)
            future.set_exception(error)
        return future

    def as_completed(self, futures: Iterable[Any]) -> Iterator[Any]:
        """The futures in their order: all of them are done."""
        yield from futures

    def run(
        self,
        calls: Iterable[Call],
        *,
        priority: Priority = "normal",  # noqa: ARG002  (there is nobody to overtake)
        began: Callable[[str], None] | None = None,
    ) -> Iterator[Done]:
        """Run each call in turn; the first that fails for good is the last."""
        for call in calls:
            done = _run_here(call, began or (lambda _: None))
            yield done
            if done.error:
                return


def _run_here(call: Call, began: Callable[[str], None]) -> Done:
    attempt = 1
    while True:
        began(call.key)
        try:
            return Done(call.key, call.function(*call.args), attempts=attempt)
        except Exception as error:  # noqa: BLE001  (it is given to the caller)
            if not wait_to_try_again(error, attempt):
                return Done(call.key, error=error, attempts=attempt)
            attempt += 1
