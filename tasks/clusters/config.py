"""Clusters by name: ``HEADRACE_CLUSTER`` says which, ``settings/clusters/<name>.toml`` says what.

``local`` is Dask on this machine and needs no file; an address (``tcp://scheduler:8786``) needs
none either. Any other name is a file, for example::

    # settings/clusters/gpu.toml
    kind = "kubernetes"
    namespace = "ml"
    image = "registry.internal/headrace:1.4"
    workers = 4
    gpus = 1
    memory = "16GiB"
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from headrace.errors import SettingRefused
from headrace.settings import Memory, Settings, cluster_file
from headrace.spec import Part


class _Common(Part):
    name: str
    ttl_seconds: float = Field(
        30.0, ge=5, le=3600, description="silence after which a worker is taken for hung"
    )
    restarts: int = Field(
        5, ge=0, le=100, description="losses of the scheduler in a row before the run gives up"
    )
    notice: str = Field(
        "",
        description="how a machine says that it will be taken away: a file that appears, a URL "
        "that answers 200, 'aws' or 'gcp'; SIGTERM is always understood",
    )


class Local(_Common):
    """Dask worker processes on this machine."""

    kind: Literal["local"] = "local"
    workers: int = Field(2, ge=1, le=256, description="worker processes")
    threads: int = Field(1, ge=1, le=64, description="shards that one worker scores at once")
    memory: Memory = Field("2GiB", description="memory limit of a worker")


class Address(_Common):
    """A scheduler that somebody else keeps running."""

    kind: Literal["address"] = "address"
    address: str = Field(pattern=r"^\w+://.+:\d+$", description="such as tcp://scheduler:8786")
    reconnect_seconds: float = Field(
        120.0, ge=0, le=86_400, description="how long a scheduler that is gone is waited for"
    )


class Cuda(_Common):
    """One worker for each GPU of this machine, by dask-cuda."""

    kind: Literal["cuda"] = "cuda"
    gpus: tuple[int, ...] | None = Field(None, description="which GPUs; all if left out")
    threads: int = Field(1, ge=1, le=64, description="shards that one worker scores at once")
    memory: Memory = Field("8GiB", description="host memory limit of a worker")
    device_memory: Memory | None = Field(
        None, description="GPU memory above which a worker spills to the host"
    )
    rmm_pool: Memory | None = Field(None, description="GPU memory that a worker takes at once")


class Adapt(Part):
    """Between how many workers the cluster may move."""

    minimum: int = Field(0, ge=0, le=10_000)
    maximum: int = Field(ge=1, le=10_000)

    @model_validator(mode="after")
    def _in_order(self) -> "Adapt":
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Kubernetes(_Common):
    """Pods of a Dask cluster that the Dask operator makes and takes away."""

    kind: Literal["kubernetes"] = "kubernetes"
    namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    image: str = Field(min_length=1, description="with Headrace installed, in this version")
    workers: int = Field(2, ge=1, le=10_000, description="pods; with 'adapt', how many at first")
    adapt: Adapt | None = Field(None, description="{minimum = 1, maximum = 20}")
    cpus: float = Field(1.0, gt=0, le=256, description="CPUs that a worker asks for")
    threads: int = Field(1, ge=1, le=64, description="shards that one worker scores at once")
    memory: Memory = Field("2GiB", description="asked for and limit, of a worker")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of a worker")
    gpu_resource: str = Field("nvidia.com/gpu", description="what the device plugin calls them")
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    environment: dict[str, str] = Field(
        default_factory=dict, description="more variables, beside this process's HEADRACE_*"
    )
    secrets: tuple[str, ...] = Field(
        (), description="Kubernetes secrets whose keys become variables (AWS_..., passwords)"
    )
    drain_seconds: int = Field(
        120, ge=1, le=3600, description="time that a pod has to finish its shard when it must go"
    )


Config = Local | Address | Cuda | Kubernetes
_BY_KIND: TypeAdapter[Config] = TypeAdapter(Annotated[Config, Field(discriminator="kind")])


def read_config(settings: Settings, folder: Path | None = None) -> Config:
    """The configuration of the cluster that the settings name.

    Args:
        settings: their ``cluster``, and the workers of ``local``.
        folder: where ``clusters/<name>.toml`` lies; ``settings/`` of the working directory if None.

    Raises:
        SettingRefused: if there is no such file, or it holds a wrong name or value.
    """
    name = settings.cluster
    if name == "local":
        return Local(name=name, workers=settings.workers, memory=settings.worker_memory)
    if "://" in name:
        return Address(name=name, address=name)
    path = cluster_file(name, folder)
    try:
        return _BY_KIND.validate_python({"name": name} | tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise SettingRefused(str(path), "(file)", f"it is not TOML: {error}") from error
    except ValidationError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: ValidationError) -> SettingRefused:
    first = error.errors()[0]
    # The first step of a field's place is the kind, where the kind itself is right.
    place = [str(step) for step in first["loc"]]
    kinds = {kind.model_fields["kind"].default: kind for kind in (Local, Address, Cuda, Kubernetes)}
    kind = kinds.get(place[0]) if place else None
    field = kind.model_fields.get(place[1]) if kind and len(place) > 1 else None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden" and kind:
        known = sorted(set(kind.model_fields) - {"name"})
        message = f"a cluster of kind {place[0]!r} has no such field; it has {', '.join(known)}"
    elif first["type"].startswith("union_tag"):
        message = f"write kind = one of {', '.join(map(repr, kinds))}"
    elif field is not None and field.description:
        message = f"{message} ({field.description})"
    where = ".".join(place[1:] if kind else place) or "kind"
    value = first["input"]
    if first["type"] == "missing" or first["type"].startswith("union_tag"):
        value = value.get(where, "(left out)")
    return SettingRefused(f"{path}: {where}", value, message[0].lower() + message[1:])
