import numpy as np
import pytest

from headrace.gpu import GpuUsage, gpu_count, gpu_memory_bytes
from serving.errors import DeviceMissing
from serving.runtimes.device import choose_device

needs_gpu = pytest.mark.skipif(gpu_count() == 0, reason="no NVIDIA GPU here")


def choose(wanted, *, builds_cuda):
    return choose_device(wanted, library="XGBoost", builds_cuda=builds_cuda, remedy="install it")


@pytest.mark.parametrize(
    ("wanted", "gpus", "builds_cuda", "device"),
    [
        ("cpu", 1, True, "cpu"),
        ("auto", 1, True, "cuda"),
        ("auto", 0, True, "cpu"),
        ("auto", 1, False, "cpu"),
        ("cuda", 1, True, "cuda"),
    ],
)
def test_the_device_is_what_the_worker_has_and_the_library_can(
    monkeypatch, wanted, gpus, builds_cuda, device
):
    monkeypatch.setattr("serving.runtimes.device.gpu_count", lambda: gpus)
    assert choose(wanted, builds_cuda=builds_cuda) == device


@pytest.mark.parametrize(
    ("gpus", "says"), [(0, "this process has no NVIDIA GPU"), (1, "no CUDA part; install it")]
)
def test_a_gpu_that_cannot_be_used_is_an_error_that_says_why(monkeypatch, gpus, says):
    monkeypatch.setattr("serving.runtimes.device.gpu_count", lambda: gpus)
    with pytest.raises(DeviceMissing, match=says):
        choose("cuda", builds_cuda=False)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["xgboost", "onnx", "torch"])
def test_a_gpu_answers_within_rounding_of_the_cpu(kind, model, opened, matrix):
    on_cpu, on_gpu = (opened(kind, model(kind), device=device) for device in ("cpu", "auto"))
    if on_gpu.device == "cpu":
        pytest.skip(f"the installed {kind} has no CUDA part")
    rows = matrix(10_000)
    np.testing.assert_allclose(on_gpu.predict(rows), on_cpu.predict(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@needs_gpu
def test_the_use_of_a_gpu_is_measured():
    with GpuUsage(sample_seconds=0.01) as usage:
        assert gpu_memory_bytes() > 0
    assert 0 <= usage.mean_utilisation <= 1
    assert 0 < usage.most_memory_bytes <= gpu_memory_bytes()
