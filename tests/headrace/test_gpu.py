"""What is read of NVML, on a stand-in of the driver's library: no driver is needed."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from headrace.gpu import GpuUsage, gpu_count, gpu_memory_bytes


@pytest.fixture
def driver(monkeypatch):
    """A machine with two GPUs: 0 with 10 bytes and idle, 1 with 20 bytes and half busy."""
    nvml = ModuleType("pynvml")
    nvml.NVMLError = type("NVMLError", (Exception,), {})
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None
    nvml.nvmlDeviceGetCount = lambda: 2
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: int(uuid[-1])
    nvml.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(total=(gpu + 1) * 10, used=gpu + 3)
    nvml.nvmlDeviceGetUtilizationRates = lambda gpu: SimpleNamespace(gpu=gpu * 50)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


@pytest.mark.parametrize(
    ("visible", "count", "first_bytes"),
    [(None, 2, 10), ("1", 1, 20), ("1,0", 2, 20), ("GPU-a1", 1, 20), ("", 0, 0), ("-1", 0, 0)],
)
def test_only_the_gpus_of_this_process_count(driver, monkeypatch, visible, count, first_bytes):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (gpu_count(), gpu_memory_bytes()) == (count, first_bytes)


def test_the_mean_use_of_the_own_gpu_is_told(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with GpuUsage(sample_seconds=0.001) as usage:
        pass
    assert (usage.mean_utilisation, usage.most_memory_bytes) == (0.5, 4)


def test_a_machine_without_a_driver_has_no_gpu(driver, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def fails():
        raise driver.NVMLError

    driver.nvmlInit = fails
    with GpuUsage() as usage:
        assert gpu_count() == 0
    assert usage.mean_utilisation is None
