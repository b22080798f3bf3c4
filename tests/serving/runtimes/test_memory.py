import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import OutOfMemory, RuntimeFailed
from serving.runtimes.memory import FittingBatches, at_most, failure
from serving.runtimes.onnx import OnnxRuntime

KINDS = ("xgboost", "onnx", "ensemble")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_does_not_fit_is_halved_with_the_same_bytes(kind, model, opened, matrix):
    runtime = opened(kind, model(kind))
    batches = FittingBatches(runtime, rows=512, allocate=at_most(100))
    rows = matrix(1000)
    assert batches.predict(rows).tobytes() == runtime.predict(rows).tobytes()
    assert batches.rows == 64  # 512, 256, 128, 64


class Device:
    """A model on a device with memory for so many rows; remembers how many it was asked."""

    columns, device = 1, "cuda"

    def __init__(self, fits):
        self.fits, self.asked = fits, []

    def predict(self, matrix):
        self.asked.append(len(matrix))
        if len(matrix) > self.fits:
            raise OutOfMemory("predict", "CUDA out of memory", library="XGBoost")
        return matrix[:, 0].copy()

    def close(self):
        """Nothing to free."""


def column(rows):
    return np.arange(rows, dtype=np.float32).reshape(-1, 1)


def test_the_size_that_fits_is_remembered_and_never_exceeded_again():
    device = Device(fits=30)
    batches = FittingBatches(device, rows=100)
    np.testing.assert_array_equal(batches.predict(column(250)), np.arange(250))
    assert max(device.asked[2:]) == 25  # 100 and 50 were tried once each
    device.asked.clear()
    device.fits = 10_000  # memory is free again: nobody tries
    np.testing.assert_array_equal(batches.predict(column(60)), np.arange(60))
    assert device.asked == [25, 25, 10]


def test_a_small_batch_that_does_not_fit_is_halved_from_its_own_size():
    device = Device(fits=4)
    batches = FittingBatches(device, rows=65_536)
    np.testing.assert_array_equal(batches.predict(column(10)), np.arange(10))
    assert device.asked == [10, 5, 2, 2, 2, 2, 2]


def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(OutOfMemory, match=r"not even one row fits into memory: .* Give"):
        FittingBatches(Device(fits=0), rows=8).predict(column(20))


def test_another_error_is_not_taken_for_a_lack_of_memory(model, opened):
    batches = FittingBatches(opened("xgboost", model("xgboost")), rows=8)
    with pytest.raises(RuntimeFailed, match=r"is not \(rows, 5\)") as found:
        batches.predict(np.zeros((20, 4), np.float32))
    assert not isinstance(found.value, OutOfMemory)


@pytest.mark.parametrize(
    "said",
    [
        "std::bad_alloc",
        "cudaErrorMemoryAllocation: out of memory",
        "CUDA failure 2: out of memory ; GPU=0",
        "BFCArena::AllocateRawInternal Available memory of 0 is smaller than requested bytes of 9",
        "Failed to allocate memory for requested buffer of size 4096",
    ],
)
def test_the_words_of_the_libraries_for_it_are_known(said):
    assert isinstance(failure("XGBoost", "predict", said), OutOfMemory)
    assert not isinstance(failure("XGBoost", "predict", "bad input shape"), OutOfMemory)


_BOUNDED = """
import sys
import numpy as np
import onnxruntime as ort
from serving.runtimes.memory import FittingBatches
from serving.runtimes.onnx import OnnxRuntime

folder, arena_bytes = sys.argv[1], int(sys.argv[2])
memory = ort.OrtMemoryInfo(
    "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
)
ort.create_and_register_allocator(memory, ort.OrtArenaCfg(arena_bytes, -1, -1, -1))
rows = np.load(f"{folder}/rows.npy")
model = open(f"{folder}/model.onnx", "rb").read()
batches = FittingBatches(OnnxRuntime(model, rows=rows, threads=2), rows=2048)
np.save(f"{folder}/given.npy", batches.predict(rows))
print(batches.rows)
"""


def onnx_file(path, nodes, tensors):
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 5])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])],
        tensors,
    )
    sets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=10).SerializeToString()
    path.write_bytes(model)
    return model


def hidden_layer(path, *, width):
    """A model that takes 4 * ``width`` bytes a row while it computes."""
    random = np.random.default_rng(0)
    shapes = {"first": (5, width), "second": (width, 1)}
    tensors = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["features", "first"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["prediction"]),
    ]
    return onnx_file(path, nodes, tensors)


def test_a_real_allocator_at_its_limit_halves_the_batch_with_the_same_bytes(tmp_path, matrix):
    """ONNX Runtime's own error: two blocks of 8 MiB at a time, in an arena of 12."""
    rows = np.nan_to_num(matrix(2048))
    np.save(tmp_path / "rows.npy", rows)
    model = hidden_layer(tmp_path / "model.onnx", width=8192)
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, str(tmp_path), str(12 * 2**20)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048
    wanted = OnnxRuntime(model, rows=rows).predict(rows)
    assert np.load(tmp_path / "given.npy").tobytes() == wanted.tobytes()
