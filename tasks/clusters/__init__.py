"""Where the work of flows is computed: in this process, or on Dask workers of some kind.

``cluster(settings)`` gives a ``Compute`` and takes down what it started, however the block ends::

    with cluster(settings, needs=Needs(workers=2)) as compute:
        for done in compute.run(calls, priority="urgent"):
            ...

compute         what a flow sees: ``Call``, ``Done``, ``Compute``; and ``Here``, this process
config          clusters by name: settings/clusters/<name>.toml
needs           what a plan asks, held against what the cluster has
launch          starts each kind; ``kubernetes`` says what its pods are
dask_compute    Dask workers as a ``Compute`` that outlives its scheduler
rolling         few calls a worker under way; retries, deaths, losses
priorities      urgent overtakes, and low does not starve
fitness         whether workers have our code
draining        a worker that is told to end finishes its shard first; ``notices`` of spot machines
dask_settings   what is set in Dask, and why
"""

import contextlib
import logging
from collections.abc import Iterator

from headrace.settings import Settings
from tasks.clusters.compute import Call, Compute, Done, Here
from tasks.clusters.config import Config, read_config
from tasks.clusters.dask_settings import DASK_SETTINGS, DRAIN
from tasks.clusters.ending import sigterm_ends_the_block
from tasks.clusters.errors import ClusterUnreachable
from tasks.clusters.launch import missing_package
from tasks.clusters.needs import Needs, check, promised
from tasks.clusters.priorities import Priority

__all__ = ["Call", "ClusterUnreachable", "Compute", "Done", "Needs", "Priority", "cluster"]


@contextlib.contextmanager
def cluster(
    settings: Settings,
    *,
    needs: Needs | None = None,
    config: Config | None = None,
    small: bool = False,
) -> Iterator[Compute]:
    """The cluster that ``settings.cluster`` names; what was started for it ends with the block.

    Args:
        settings: which cluster, and where things are.
        needs: what the work cannot do without.
        config: instead of what the settings name.
        small: True for work that takes less time than starting workers does: it runs in this
            process, unless a cluster of another kind than ``local`` was asked for.

    Raises:
        SettingRefused: if there is no cluster of that name, or its file is wrong.
        ClusterTooSmall: if it lacks what is needed; nothing has begun then.
        ClusterKindMissing: if the library for its kind is not installed.
        ClusterUnreachable: if an address is given and nobody answers there.
        WorkerUnfit: if a worker there cannot run our code.
    """
    config = config or read_config(settings)
    needs = needs or Needs()
    if missing := missing_package(config):
        raise missing
    if has := promised(config):
        check(config.name, needs, has)
    if small and config.kind == "local":
        yield Here()
        return
    import dask
    import distributed  # noqa: F401  (its own settings must be there before ours are set, and stay)

    from tasks.clusters.dask_compute import DaskCompute

    logging.getLogger("distributed").setLevel(logging.WARNING)  # its own lines are not a run's
    ours = DASK_SETTINGS | {
        "distributed.scheduler.worker-ttl": f"{config.ttl_seconds:g}s",
        "distributed.worker.preload": [DRAIN],
        "headrace.notice": config.notice,
    }
    with (
        dask.config.set(ours),
        sigterm_ends_the_block(),
        DaskCompute(config, settings, needs) as compute,
    ):
        yield compute
