"""The NVIDIA GPUs that this process may use: how many, how large and how busy, by NVML.

``CUDA_VISIBLE_DEVICES`` says which of a machine's GPUs are this process's own (a Dask-CUDA worker
has one each, its first); NVML knows nothing of it, so it is read here. A machine without the
driver or without ``nvidia-ml-py`` has no GPU.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

_SAMPLE_SECONDS = 0.1


def gpu_count() -> int:
    """How many GPUs this process may use."""
    with _nvml() as nvml:
        return len(_handles(nvml))


def gpu_memory_bytes() -> int:
    """The memory of this process's first GPU; 0 where it has none."""
    with _nvml() as nvml:
        handles = _handles(nvml)
        return int(nvml.nvmlDeviceGetMemoryInfo(handles[0]).total) if handles else 0


class GpuUsage:
    """How busy this process's first GPU is while the ``with`` block runs.

    >>> with GpuUsage() as usage:
    ...     busy = sum(range(1000))
    >>> usage.mean_utilisation is None or 0 <= usage.mean_utilisation <= 1
    True
    """

    def __init__(self, *, sample_seconds: float = _SAMPLE_SECONDS) -> None:
        self._sample_seconds = sample_seconds
        self._samples: list[float] = []
        self._most_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-usage", daemon=True)

    @property
    def mean_utilisation(self) -> float | None:
        """The mean share of the time in which the GPU computed, in [0, 1]; None without a GPU.

        NVML's own figure: the share of its last sampling period (1/6 to 1 s) in which a kernel ran.
        """
        return sum(self._samples) / len(self._samples) if self._samples else None

    @property
    def most_memory_bytes(self) -> int:
        """The most memory that was taken on the GPU, by anybody; 0 without a GPU."""
        return self._most_bytes

    def __enter__(self) -> "GpuUsage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with _nvml() as nvml:
            handles = _handles(nvml)
            while handles:
                self._samples.append(nvml.nvmlDeviceGetUtilizationRates(handles[0]).gpu / 100)
                used = int(nvml.nvmlDeviceGetMemoryInfo(handles[0]).used)
                self._most_bytes = max(self._most_bytes, used)
                if self._ended.wait(self._sample_seconds):
                    return


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, started; None where there is none."""
    try:
        import pynvml
    except ModuleNotFoundError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or no GPU that it knows
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _handles(nvml: Any) -> list[Any]:
    if nvml is None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    return [_handle(nvml, name.strip()) for name in visible.split(",") if _is_device(name.strip())]


def _is_device(name: str) -> bool:
    return name.isdigit() or name.startswith(("GPU-", "MIG-"))  # -1 and "" hide all that follow


def _handle(nvml: Any, name: str) -> Any:
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)
