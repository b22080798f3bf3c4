"""Starts a cluster of each kind, or connects to one, and gives a Dask client of it.

Each is a context manager: what it started ends with the block, whatever ends it. What somebody else
runs is left running.
"""

import contextlib
import importlib.util
import sys
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace.settings import Settings
from tasks.clusters.config import Address, Config, Cuda, Kubernetes, Local
from tasks.clusters.errors import ClusterKindMissing, ClusterUnreachable
from tasks.clusters.kubernetes import cluster_resource

if TYPE_CHECKING:
    from distributed import Client


@contextlib.contextmanager
def launched(config: Config, settings: Settings, *, again: bool = False) -> Iterator["Client"]:
    """A client of the cluster that the configuration describes.

    Args:
        config: which kind, and how many.
        settings: where local state lies.
        again: True where it was there before and is lost: a scheduler of somebody else's is then
            waited for, ``reconnect_seconds`` long.

    Raises:
        ClusterUnreachable: if an address is given and nobody answers there.
        ClusterKindMissing: if the library of the kind is not installed.
    """
    from distributed import Client

    if isinstance(config, Address):
        seconds = config.reconnect_seconds if again else 0
        with _connected(config.address, wait_seconds=seconds) as client:
            yield client
        return
    with (
        _main_unnamed(),
        _started(config, settings) as cluster,
        # Nobody else's default: a flow may have a client of its own.
        contextlib.closing(Client(cluster, set_as_default=False)) as client,
    ):
        yield client


@contextlib.contextmanager
def _main_unnamed() -> Iterator[None]:
    """Keep processes that start meanwhile from importing the program that starts them.

    A spawned process imports its parent's ``__main__`` first, for functions that are defined there.
    Dask sends those by value, and a flow's command brings all of Prefect: seconds for each worker.
    """
    main: dict[str, Any] = vars(sys.modules["__main__"])
    hidden = {str(name): main.pop(name) for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def missing_package(config: Config) -> ClusterKindMissing | None:
    """What to install for a kind, or None if it is there."""
    wanted = {
        "cuda": ("dask_cuda", "dask-cuda", "pip install dask-cuda, on a machine with NVIDIA GPUs"),
        "kubernetes": ("dask_kubernetes", "dask-kubernetes", "pip install 'headrace[kubernetes]'"),
    }
    if config.kind not in wanted:
        return None
    module, package, install = wanted[config.kind]
    if importlib.util.find_spec(module):
        return None
    return ClusterKindMissing(config.name, config.kind, package, install)


@contextlib.contextmanager
def _connected(address: str, *, wait_seconds: float) -> Iterator["Client"]:
    from distributed import Client

    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            client = Client(address, set_as_default=False)
            break
        except (OSError, TimeoutError) as error:
            if time.monotonic() >= deadline:
                raise ClusterUnreachable(address) from error
            time.sleep(0.5)
    with contextlib.closing(client):
        yield client


def _started(config: Local | Cuda | Kubernetes, settings: Settings) -> Any:
    missing = missing_package(config)
    if missing:
        raise missing
    if isinstance(config, Kubernetes):
        return _on_kubernetes(config, settings)
    common = {
        "threads_per_worker": config.threads,
        "memory_limit": config.memory,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "local_directory": str(settings.home / "dask"),
    }
    if isinstance(config, Cuda):
        return _on_gpus(config, common)
    from distributed import LocalCluster

    return LocalCluster(n_workers=config.workers, **common)


def _on_gpus(config: Cuda, common: dict[str, Any]) -> Any:
    from dask_cuda import LocalCUDACluster

    return LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=list(config.gpus) if config.gpus is not None else None,
        device_memory_limit=config.device_memory or 0,  # 0: it does not spill
        rmm_pool_size=config.rmm_pool,
        **common,
    )


def _on_kubernetes(config: Kubernetes, settings: Settings) -> Any:
    name = f"headrace-{uuid.uuid4().hex[:8]}"
    resource = cluster_resource(config, settings, name=name)
    from dask_kubernetes.operator import KubeCluster

    cluster = KubeCluster(
        custom_cluster_spec=resource, namespace=config.namespace, shutdown_on_close=True, quiet=True
    )
    if config.adapt:
        cluster.adapt(minimum=config.adapt.minimum, maximum=config.adapt.maximum)
    return cluster
