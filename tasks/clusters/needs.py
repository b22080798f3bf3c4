"""What a plan asks of a cluster, held against what the cluster has before any work starts."""

import re
from dataclasses import dataclass

from tasks.clusters.config import Address, Config, Cuda, Kubernetes
from tasks.clusters.errors import ClusterTooSmall
from tasks.clusters.fitness import visible_gpus

_UNITS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a plan cannot do without; a field left at its default asks for nothing."""

    gpu: bool = False
    """True if every worker must have a GPU."""
    memory: int = 0
    """Bytes that one worker needs."""
    workers: int = 1
    """How many workers there must be at least."""


@dataclass(frozen=True, kw_only=True)
class Has:
    """What a cluster offers: by its configuration before it starts, or as its workers say."""

    workers: int
    """How many there are, or may become where the cluster grows."""
    memory: int | None
    """Bytes of the smallest worker; None where no limit is set."""
    gpus: int
    """How many of the workers have one."""


def check(name: str, needs: Needs, has: Has) -> None:
    """Pass if the cluster has what the plan needs.

    Raises:
        ClusterTooSmall: naming all that is short, with what was asked, what there is, the remedy.
    """
    short = []
    if has.workers < needs.workers:
        short.append(
            f"{needs.workers} workers are asked for, it has {has.workers}; "
            "start more, or raise 'workers' (HEADRACE_WORKERS)"
        )
    if needs.gpu and has.gpus < max(needs.workers, has.workers):
        short.append(
            f"a GPU for each worker is asked for, {has.gpus} of its {has.workers} workers have "
            "one; use a cluster of kind 'cuda' or with 'gpus', or score with device cpu"
        )
    if has.memory is not None and has.memory < needs.memory:
        short.append(
            f"{_readable(needs.memory)} of memory for each worker is asked for, it has "
            f"{_readable(has.memory)}; raise 'memory' (HEADRACE_WORKER_MEMORY) or cut smaller "
            "shards"
        )
    if short:
        raise ClusterTooSmall(name, short)


def promised(config: Config) -> Has | None:
    """What a cluster will have once it is started; None where only its workers can say."""
    if isinstance(config, Address):
        return None
    memory = bytes_of(config.memory)
    if isinstance(config, Kubernetes):
        workers = config.adapt.maximum if config.adapt else config.workers
        return Has(workers=workers, memory=memory, gpus=workers if config.gpus else 0)
    if isinstance(config, Cuda):
        gpus = len(config.gpus) if config.gpus is not None else visible_gpus()
        return Has(workers=gpus, memory=memory, gpus=gpus)
    # The workers of one machine share its GPUs.
    gpus = config.workers if visible_gpus() else 0
    return Has(workers=config.workers, memory=memory, gpus=gpus)


def bytes_of(amount: str) -> int:
    """The bytes of an amount of memory as settings write it.

    >>> bytes_of("512MiB"), bytes_of("1.5 GB")
    (536870912, 1500000000)
    """
    number, unit, binary = re.fullmatch(r"([0-9.]+) ?([kMGT]?)(i?)B", amount).groups()  # type: ignore[union-attr]
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit])


def _readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
