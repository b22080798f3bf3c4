"""Where a model computes: on the CPU, or on a GPU where there is one that its library can use."""

from typing import Literal

from headrace.gpu import gpu_count
from serving.errors import DeviceMissing

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["cpu", "cuda", "auto"]


def choose_device(wanted: DeviceChoice, *, library: str, builds_cuda: bool, remedy: str) -> Device:
    """Return where a library shall compute.

    Args:
        wanted: ``auto`` is a GPU where this process has one and the library can use it.
        library: its name, for the error.
        builds_cuda: whether the installed build of the library has its CUDA part.
        remedy: what to install where it has not.

    Raises:
        DeviceMissing: if ``cuda`` was asked for and there is no GPU, or the library cannot use it.
    """
    if wanted == "cpu" or (wanted == "auto" and not builds_cuda):
        return "cpu"
    if gpu_count() == 0:
        if wanted == "auto":
            return "cpu"
        raise DeviceMissing(library, "this process has no NVIDIA GPU; choose device cpu or auto")
    if not builds_cuda:
        raise DeviceMissing(library, f"the installed build has no CUDA part; {remedy}")
    return "cuda"
