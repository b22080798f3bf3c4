"""What can be wrong with a cluster. See the tree of ``headrace.errors`` for the bases.

HeadraceError
├── ClusterUnreachable    no scheduler answers at the address
├── ClusterLost           it answered, then was lost again and again without getting anywhere
├── WorkerUnfit           a worker without Headrace, or with another version of it
├── SchedulerLost         it is gone for now; met inside this package only
├── WorkersGone           a scheduler that has no worker left to give work to
└── CallKillsWorkers      a call whose workers die, again and again
UsageError
├── ClusterTooSmall       a plan that asks for what the cluster lacks
└── ClusterKindMissing    a kind whose library is not installed here
"""

from collections.abc import Sequence

from headrace.errors import HeadraceError, UsageError


class ClusterUnreachable(HeadraceError):
    """A Dask scheduler that does not answer."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"no Dask scheduler answers at {address!r} (HEADRACE_CLUSTER); start one there, "
            "or use 'local'."
        )


class ClusterLost(HeadraceError):
    """A cluster that was lost again and again without finishing anything in between."""

    def __init__(self, name: str, losses: int, reason: object) -> None:
        self.name, self.losses, self.reason = name, losses, reason
        super().__init__(
            f"cluster {name!r} was lost {losses} times and finished nothing in between (last: "
            f"{reason}). What is recorded is kept: look at the scheduler's log and memory, then "
            "run the same command again."
        )


class SchedulerLost(HeadraceError):
    """A scheduler that does not answer any more; the next one gets the work."""

    def __init__(self, name: str, reason: object) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"the scheduler of cluster {name!r} is lost: {reason}")


class WorkerUnfit(HeadraceError):
    """A Dask worker that cannot run our code, or would run other code."""

    def __init__(self, worker: str, found: str, wanted: str) -> None:
        self.worker, self.found, self.wanted = worker, found, wanted
        super().__init__(
            f"Dask worker {worker} has {found}, but this process has {wanted}. Install the same "
            "version in the worker's environment (pip install, as here: never by a path), restart "
            "it, and run the command again."
        )


class WorkersGone(HeadraceError):
    """A scheduler that has no worker left."""

    def __init__(self, name: str, reason: object) -> None:
        self.name, self.reason = name, reason
        super().__init__(
            f"cluster {name!r} has no worker to give work to: {reason}. What is recorded is kept: "
            "start workers, then run the same command again."
        )


class CallKillsWorkers(HeadraceError):
    """A call that is given up, because the workers it runs on die."""

    def __init__(self, key: str, deaths: int, worker: str) -> None:
        self.key, self.deaths, self.worker = key, deaths, worker
        super().__init__(
            f"{key} is given up: {deaths} Dask workers died while they worked on it, last "
            f"{worker}. Such deaths are crashes (segmentation faults) or the memory limit: look at "
            "the workers' log, give them more memory (HEADRACE_WORKER_MEMORY) or smaller shards, "
            "then run the same command again; what is recorded is kept."
        )


class ClusterTooSmall(UsageError):
    """A plan that asks for what the cluster lacks."""

    def __init__(self, name: str, short: Sequence[str]) -> None:
        self.name, self.short = name, tuple(short)
        super().__init__(f"cluster {name!r} is too small for this: {'; '.join(short)}.")


class ClusterKindMissing(UsageError):
    """A kind of cluster whose library is not installed here."""

    def __init__(self, name: str, kind: str, package: str, install: str) -> None:
        self.name, self.kind, self.package = name, kind, package
        super().__init__(
            f"cluster {name!r} is of kind {kind!r}, which needs the package {package}; it is not "
            f"installed here. Install it ({install}), or use HEADRACE_CLUSTER=local."
        )
