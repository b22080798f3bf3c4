"""The one door to Dask: a cluster by its name, always torn down.

The settings below were chosen by killing workers: with Dask's defaults a local cluster loses a
worker for good after about ten kills, and a hung worker is noticed after five minutes. See
docs/decisions/0005-dask-settings.md.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from headrace.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

DASK_SETTINGS = {
    "distributed.deploy.lost-worker-timeout": "1h",  # a worker killed twice keeps its slot
    "distributed.scheduler.worker-ttl": "30s",  # a hung worker is given up, not waited for
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.no-workers-timeout": "5 minutes",
    "distributed.comm.timeouts.connect": "10s",
    "distributed.worker.daemon": True,
    "distributed.admin.low-level-log-length": 0,
    "distributed.diagnostics.nvml": False,
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning",
}


class ClusterUnreachable(HeadraceError):
    """A Dask scheduler that does not answer."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"no Dask scheduler answers at {address!r} (HEADRACE_CLUSTER); start one there, "
            "or use 'local'."
        )


@contextlib.contextmanager
def cluster(settings: Settings) -> Iterator["Client"]:
    """A client of the cluster that ``settings.cluster`` names; a local one ends with the block.

    Raises:
        ClusterUnreachable: if an address is given and nobody answers there.
    """
    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.WARNING)  # its own lines are not a run's

    with dask.config.set(DASK_SETTINGS):
        if settings.cluster != "local":
            try:
                client = Client(settings.cluster)
            except (OSError, TimeoutError) as error:
                raise ClusterUnreachable(settings.cluster) from error
            with client:
                yield client
            return
        with (
            LocalCluster(
                n_workers=settings.workers,
                threads_per_worker=1,
                memory_limit=settings.worker_memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=str(settings.home / "dask"),
            ) as local,
            Client(local) as client,
        ):
            yield client
