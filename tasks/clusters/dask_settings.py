"""What is set in Dask before a cluster starts.

Chosen by killing workers: with Dask's defaults a local cluster loses a worker for good after about
ten kills, and a hung worker is noticed after five minutes. See
docs/decisions/0005-dask-settings.md.
"""

from typing import Any

DASK_SETTINGS: dict[str, Any] = {
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

DRAIN = "tasks.clusters.draining"
"""What every worker and nanny of ours loads first: it lets go of work when told to end."""
