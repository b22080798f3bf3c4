"""What a Dask cluster on Kubernetes is made of, as the Dask operator wants it told.

``cluster_resource`` is a pure function of the configuration: the same gives the same, nothing is
asked of a cluster. https://kubernetes.dask.org/en/latest/operator_resources.html
"""

from collections.abc import Mapping
from typing import Any

from headrace.errors import SettingRefused
from headrace.settings import PREFIX, Settings
from tasks.clusters.config import Kubernetes
from tasks.clusters.dask_settings import DASK_SETTINGS, DRAIN
from tasks.clusters.needs import bytes_of

_NANNY_BYTES = 512 * 2**20
"""What a pod needs beside its worker: the nanny's process and the worker's own growth at the limit,
so that the nanny restarts a greedy worker before Kubernetes kills the pod."""
_FOR_WORKERS = "distributed.nanny.pre-spawn-environ."
_AFTER_DRAINING_SECONDS = 30
_SCHEDULER = {"cpu": "1", "memory": str(2 * 2**30)}


def cluster_resource(config: Kubernetes, settings: Settings, *, name: str) -> dict[str, Any]:
    """The ``DaskCluster`` resource of a configuration.

    Args:
        config: what is asked for.
        settings: where pods find storage and features.
        name: of the resource, unique in its namespace.

    Raises:
        SettingRefused: if the storage is a folder of this machine, which no pod can see.
    """
    if "://" not in settings.storage_uri:
        raise SettingRefused(
            PREFIX + "STORAGE",
            settings.storage_uri,
            "pods of a Kubernetes cluster cannot see a folder of this machine; write an address "
            "such as s3://bucket/headrace",
        )
    environment = _environment(config, settings)
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "headrace"}},
        "spec": {
            "worker": {"replicas": config.workers, "spec": _worker_pod(config, environment)},
            "scheduler": {
                "spec": _scheduler_pod(config, environment),
                "service": _service(name),
            },
        },
    }


def dask_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dask settings as the variables that Dask reads where nobody else tells them.

    >>> dask_variables({"distributed.scheduler.worker-ttl": "30s"})
    {'DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL': '30s'}
    """
    return {_variable(name): str(value) for name, value in settings.items()}


def _variable(setting: str) -> str:
    if setting.startswith(_FOR_WORKERS):
        return setting.removeprefix(_FOR_WORKERS)  # is a variable's name already
    return "DASK_" + setting.upper().replace(".", "__").replace("-", "_")


def _worker_pod(config: Kubernetes, environment: list[dict[str, str]]) -> dict[str, Any]:
    asked = {
        "cpu": f"{config.cpus:g}",
        "memory": str(bytes_of(config.memory) + _NANNY_BYTES),
        **({config.gpu_resource: str(config.gpus)} if config.gpus else {}),
    }
    command = [
        *("dask", "worker", "--name", "$(DASK_WORKER_NAME)"),
        *("--nworkers", "1", "--nthreads", str(config.threads)),
        *("--memory-limit", str(bytes_of(config.memory))),
        *("--preload", DRAIN, "--preload-nanny", DRAIN),
        *("--dashboard", "--dashboard-address", "8788"),
    ]
    container = {
        "name": "worker",
        "image": config.image,
        "args": command,
        "env": environment,
        "envFrom": _secrets(config),
        # Asked for and limit are one: a worker is not squeezed by its neighbours while it scores.
        "resources": {"requests": asked, "limits": asked},
        "ports": [{"name": "http-dashboard", "containerPort": 8788, "protocol": "TCP"}],
    }
    return _pod(config, container) | {
        "terminationGracePeriodSeconds": config.drain_seconds + _AFTER_DRAINING_SECONDS,
        "nodeSelector": config.node_selector,
        "tolerations": list(config.tolerations),
    }


def _scheduler_pod(config: Kubernetes, environment: list[dict[str, str]]) -> dict[str, Any]:
    probe = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    container = {
        "name": "scheduler",
        "image": config.image,
        "args": ["dask", "scheduler", "--host", "0.0.0.0"],  # noqa: S104  (inside its own pod)
        "env": environment,
        "resources": {"requests": _SCHEDULER, "limits": _SCHEDULER},
        "ports": [
            {"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": 8787, "protocol": "TCP"},
        ],
        "readinessProbe": probe | {"initialDelaySeconds": 1, "periodSeconds": 5},
        "livenessProbe": probe | {"initialDelaySeconds": 15, "periodSeconds": 20},
    }
    return _pod(config, container)


def _pod(config: Kubernetes, container: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "containers": [container],
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
    }
    if config.service_account:
        pod["serviceAccountName"] = config.service_account
    return pod


def _service(name: str) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
        "ports": [
            {"name": port, "protocol": "TCP", "port": number, "targetPort": port}
            for port, number in (("tcp-comm", 8786), ("http-dashboard", 8787))
        ],
    }


def _environment(config: Kubernetes, settings: Settings) -> list[dict[str, str]]:
    dask = DASK_SETTINGS | {
        "distributed.scheduler.worker-ttl": f"{config.ttl_seconds:g}s",
        "headrace.notice": config.notice,
        "headrace.drain-seconds": config.drain_seconds,
    }
    ours = {PREFIX + "STORAGE": settings.storage_uri}
    # An address with a password belongs in a Kubernetes secret (``secrets``), not in a pod's text.
    if "://" in settings.online_uri and "@" not in settings.online_uri:
        ours[PREFIX + "ONLINE_STORE"] = settings.online_uri
    variables = dask_variables(dask) | ours | config.environment
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]


def _secrets(config: Kubernetes) -> list[dict[str, Any]]:
    return [{"secretRef": {"name": secret}} for secret in config.secrets]
