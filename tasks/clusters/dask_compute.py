"""A cluster of Dask workers as a ``Compute``, which outlives its scheduler.

A lost scheduler is replaced (a new local cluster, new pods) or waited for (an address), a bounded
number of times without anything finished in between.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from headrace.settings import Settings
from tasks.clusters.compute import Call, Done
from tasks.clusters.config import Address, Config, Kubernetes
from tasks.clusters.errors import CallKillsWorkers, ClusterLost, SchedulerLost, WorkersGone
from tasks.clusters.fitness import Fitness, check_workers
from tasks.clusters.launch import launched
from tasks.clusters.needs import Has, Needs, check
from tasks.clusters.priorities import Priority, Ranks
from tasks.clusters.rolling import Rolling

if TYPE_CHECKING:
    from distributed import Client

_ANSWER_SECONDS = 30.0
_FIRST_WORKERS_SECONDS = 60.0

_log = logging.getLogger(__name__)


class DaskCompute:
    """Dask workers, behind whatever scheduler they have now. Made by ``cluster()``."""

    def __init__(self, config: Config, settings: Settings, needs: Needs) -> None:
        self.name: str = config.name
        self.kind: str = config.kind
        self._config, self._settings, self._needs = config, settings, needs
        self._threads: dict[str, int] = {}
        """Of each worker, by its address."""
        self._checked: set[str] = set()
        self._losses = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "DaskCompute":
        self._start(again=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def workers(self) -> int:
        """How many workers there are, as far as was last looked."""
        return len(self._threads)

    @property
    def slots(self) -> int:
        """How many calls can run at once; where the cluster grows with its work, at its largest."""
        now = sum(self._threads.values())
        if isinstance(self._config, Kubernetes) and self._config.adapt:
            return max(now, self._config.adapt.maximum * self._config.threads)
        return now

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        priority: Priority = "normal",
    ) -> Any:
        """Hand over one call.

        Raises:
            SchedulerLost: if there is nobody to take it.
        """
        with self._reaching():
            return self.client.submit(
                function, *args, key=key, priority=self._ranks.rank(priority), pure=False
            )

    def as_completed(self, futures: Iterable[Any]) -> Iterator[Any]:
        """The futures as they finish."""
        from distributed import as_completed

        yield from as_completed(futures, loop=self.client.loop)

    def run(
        self,
        calls: Iterable[Call],
        *,
        priority: Priority = "normal",
        began: Callable[[str], None] | None = None,
    ) -> Iterator[Done]:
        """Run every call, a few a worker at a time. See ``Compute.run``."""
        yield from Rolling(self, calls, priority=priority, began=began)

    def look(self) -> None:
        """See which workers there are; those that are new must be fit.

        Raises:
            SchedulerLost: if the scheduler does not answer.
            WorkerUnfit: if a new worker cannot run our code.
        """
        with self._reaching():
            self._threads = self.client.nthreads(callback_timeout=_ANSWER_SECONDS)
        self._check_new()

    def outcome(self, future: Any) -> tuple[Any, Exception | None]:
        """The result of a call that has ended, or why it failed.

        Raises:
            SchedulerLost: if it was the scheduler that ended it.
        """
        from distributed import KilledWorker
        from distributed.scheduler import NoValidWorkerError, NoWorkerError

        if future.status not in ("finished", "error"):
            raise SchedulerLost(self.name, f"it has let go of {future.key}")
        with self._reaching():
            error = future.exception(timeout=_ANSWER_SECONDS)
            if error is None:
                self._losses = 0
                return future.result(timeout=_ANSWER_SECONDS), None
        if isinstance(error, KilledWorker):
            deaths, worker = error.allowed_failures + 1, error.last_worker.address
            return None, CallKillsWorkers(future.key, deaths, worker)
        if isinstance(error, NoValidWorkerError | NoWorkerError):
            return None, WorkersGone(self.name, error)
        if isinstance(error, ImportError | AttributeError | RuntimeError):
            # A worker that has just come may have had it, before it was looked at.
            self.look()
        return None, error

    def renew(self, loss: SchedulerLost) -> None:
        """Get another scheduler, or the same one when it is back.

        Raises:
            ClusterLost: if this has not helped for some time.
            ClusterUnreachable: if a given address does not answer in time.
        """
        while True:
            self._losses += 1
            if self._losses > self._config.restarts:
                raise ClusterLost(self.name, self._losses, loss.reason) from loss
            _log.warning("%s; starting again (%d of %d)", loss, self._losses, self._config.restarts)
            self._let_go()
            try:
                self._start(again=True)
            except SchedulerLost as lost_again:
                loss = lost_again
            else:
                return

    def _start(self, *, again: bool) -> None:
        self.client: Client = self._open.enter_context(
            launched(self._config, self._settings, again=again)
        )
        with self._reaching():
            self._ranks = Ranks(self.client.run_on_scheduler(time.monotonic))
        self._checked = set()
        self._wait_for_workers()
        found = self._check_new()
        if isinstance(self._config, Address) and not again:
            check(self.name, self._needs, self._has(found))

    def _wait_for_workers(self) -> None:
        # Those of an address may be on their way, and pods take their time.
        deadline = time.monotonic() + _FIRST_WORKERS_SECONDS
        self._threads = {}
        while len(self._threads) < self._needs.workers and time.monotonic() < deadline:
            with self._reaching():
                self._threads = self.client.nthreads()
            time.sleep(0.0 if self._threads else 0.1)

    def _check_new(self) -> dict[str, Fitness]:
        if not isinstance(self._config, Address | Kubernetes):
            return {}  # they run in this very environment
        new = set(self._threads) - self._checked
        with self._reaching():
            found = check_workers(self.client, new) if new else {}
        self._checked |= set(found)
        return found

    def _has(self, found: dict[str, Fitness]) -> Has:
        with self._reaching():
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        limits = [worker["memory_limit"] for worker in workers.values() if worker["memory_limit"]]
        return Has(
            workers=len(self._threads),
            memory=min(limits, default=None),
            gpus=sum(1 for fitness in found.values() if fitness.gpus),
        )

    def _let_go(self) -> None:
        """Close what is left of a lost cluster; what cannot be closed is gone already."""
        import dask

        lost, self._open = self._open, contextlib.ExitStack()
        try:
            # Closing says goodbye to a scheduler that is not there: that need not take long.
            with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
                lost.close()
        except (OSError, TimeoutError, RuntimeError, AssertionError) as error:
            _log.warning("what is left of cluster %s did not close: %r", self.name, error)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Take what Dask says when its scheduler is gone for what it is."""
        from distributed import CancelledError
        from distributed.client import ClosedClientError

        try:
            yield
        except (OSError, TimeoutError, CancelledError, ClosedClientError) as error:
            raise SchedulerLost(self.name, str(error) or type(error).__name__) from error
        except RuntimeError as error:  # of a loop that its client has closed
            if self.client.status == "running":
                raise
            raise SchedulerLost(self.name, str(error)) from error
