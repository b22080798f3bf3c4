"""Whether workers can run our code: the same Headrace, installed, and the same libraries below it.

A worker of an existing cluster is asked before it gets work. Headrace's own code is compared by its
bytes: equal version numbers of two checkouts say nothing, and a shard scored by other code would
have other bytes.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.clusters.errors import WorkerUnfit

if TYPE_CHECKING:
    from distributed import Client

PACKAGES = ("headrace", "distributed", "numpy", "pyarrow")
ROOMS = ("headrace", "featurestore", "serving", "tasks")
"""What a worker runs of ours. Models and definitions are compiled into bundles."""
_SKIPPED = ("definitions", "__pycache__")


@dataclass(frozen=True)
class Fitness:
    """What a process can run."""

    python: str
    versions: tuple[tuple[str, str], ...]
    code: str
    """Of Headrace's own modules, sha256."""
    gpus: int

    def differs(self, wanted: "Fitness") -> tuple[str, str] | None:
        """What this process has and what is wanted, at the first difference; None if it fits."""
        for (name, mine), (_, theirs) in zip(self.versions, wanted.versions, strict=True):
            if mine != theirs:
                return f"{name} {mine}", f"{name} {theirs}"
        if self.python != wanted.python:
            return f"Python {self.python}", f"Python {wanted.python}"
        if self.code != wanted.code:
            return f"Headrace code {self.code[:12]}", f"Headrace code {wanted.code[:12]}"
        return None


@functools.cache
def fitness() -> Fitness:
    """Of this process; a worker is asked by the name of this function."""
    return Fitness(
        python=".".join(platform.python_version_tuple()[:2]),
        versions=tuple((name, importlib.metadata.version(name)) for name in PACKAGES),
        code=_code_digest(),
        gpus=visible_gpus(),
    )


def check_workers(client: "Client", workers: set[str]) -> dict[str, Fitness]:
    """What each of the workers can run, by address, after making sure that all fit.

    Raises:
        WorkerUnfit: naming the first that does not, what it has and what it must have.
    """
    wanted = fitness()
    ours = f"headrace {dict(wanted.versions)['headrace']} (code {wanted.code[:12]})"
    # A function of the standard library first: a worker without Headrace cannot even name ours.
    for worker, version in _ask(client, workers, importlib.metadata.version, "headrace").items():
        if isinstance(version, importlib.metadata.PackageNotFoundError):
            raise WorkerUnfit(worker, "no Headrace", ours)
    found = _ask(client, workers, fitness)
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            # It has a Headrace, but one in which this question has no name.
            raise WorkerUnfit(worker, f"another Headrace ({answer})", ours) from answer
        if difference := answer.differs(wanted):
            raise WorkerUnfit(worker, *difference)
    return found


def _ask(client: "Client", workers: set[str], function: Any, *args: Any) -> dict[str, Any]:
    """Each worker's answer, or the exception it met; a worker that has gone gives none."""
    answers = client.run(function, *args, workers=sorted(workers), on_error="return")
    return {worker: a for worker, a in answers.items() if not isinstance(a, OSError)}


def _code_digest() -> str:
    digest = hashlib.sha256()
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        assert spec is not None, f"{room} is a package of this project"
        assert spec.submodule_search_locations is not None, f"{room} is a folder"
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            if not any(part in _SKIPPED for part in name.parts):
                digest.update(f"{room}/{name.as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def visible_gpus() -> int:
    """How many NVIDIA GPUs this process may use."""
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: no GPU
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
