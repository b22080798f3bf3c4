"""ONNX files that must not be used, and what they would do."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import RuntimeFailed
from serving.runtimes.onnx import OnnxRuntime

WEIGHTS = np.arange(5, dtype=np.float32).reshape(5, 1)


def graph(nodes, tensors, *, inputs=None, outputs=None):
    rows = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 5])
    given = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 1])
    return helper.make_graph(nodes, "g", inputs or [rows], outputs or [given], tensors)


def file(made, **domains):
    sets = [helper.make_opsetid("", 20)]
    sets += [helper.make_opsetid(name.replace("_", "."), 1) for name in domains]
    return helper.make_model(made, opset_imports=sets, ir_version=10).SerializeToString()


def in_another_file(location):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[5, 1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "20")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def product(tensor):
    return graph([helper.make_node("MatMul", ["features", "w"], ["prediction"])], [tensor])


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A file of somebody else's, below the working directory."""
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)
    return "secret.bin"


def test_tensors_in_another_file_are_refused(secret):
    with pytest.raises(RuntimeFailed, match="tensor 'w' lies in another file; save the model as"):
        OnnxRuntime(file(product(in_another_file(secret))))


def test_onnx_runtime_alone_would_have_read_that_file(secret):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        file(product(in_another_file(secret))), options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.run(None, {"features": np.ones((1, 5), np.float32)})
    assert given[0, 0] == WEIGHTS.sum()


def test_a_tensor_hidden_in_a_branch_is_found(secret):
    tensor = in_another_file(secret)
    inner = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [5, 1])]
    here, there = (
        helper.make_graph([helper.make_node("Constant", [], ["w"], value=t)], name, [], inner)
        for name, t in (("here", numpy_helper.from_array(WEIGHTS)), ("there", tensor))
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    branch = helper.make_node("If", ["yes"], ["w"], then_branch=here, else_branch=there)
    product = helper.make_node("MatMul", ["features", "w"], ["prediction"])
    with pytest.raises(RuntimeFailed, match="lies in another file"):
        OnnxRuntime(file(graph([branch, product], [yes])))


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft"])
def test_operators_that_are_not_onnx_s_own_are_refused(domain):
    node = helper.make_node("Gelu", ["features"], ["prediction"], domain=domain)
    with pytest.raises(RuntimeFailed, match=f"'Gelu' is of '{domain}'"):
        OnnxRuntime(file(graph([node], []), **{domain.replace(".", "_"): 1}))


def _wide():
    return [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["rows", 5])]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            lambda: graph(
                [helper.make_node("Identity", ["features"], ["prediction"])],
                [],
                inputs=[helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["n", 5])],
                outputs=[helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["n", 5])],
            ),
            r"features tensor\(double\).*must have one float input of shape \(rows, columns\)",
        ),
        (
            lambda: graph(
                [helper.make_node("Identity", ["features"], ["prediction"])],
                [],
                inputs=[helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 5])],
            ),
            r"features tensor\(float\)\[1, 5\].*with any number of rows",
        ),
        (
            lambda: graph(
                [helper.make_node("Identity", ["features"], [name]) for name in ("one", "two")],
                [],
                outputs=[
                    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 5])
                    for name in ("one", "two")
                ],
            ),
            "one float output",
        ),
    ],
    ids=["double", "fixed rows", "two outputs"],
)
def test_another_signature_is_refused_by_name(made, says):
    with pytest.raises(RuntimeFailed, match=says):
        OnnxRuntime(file(made()))


def test_several_values_a_row_are_refused():
    node = helper.make_node("Identity", ["features"], ["prediction"])
    runtime = OnnxRuntime(file(graph([node], [], outputs=_wide())))
    with pytest.raises(RuntimeFailed, match="1280 values for 256 rows"):
        runtime.predict(np.zeros((3, 5), np.float32))


def test_rows_that_look_at_each_other_are_refused():
    steps = [
        helper.make_node("ReduceMean", ["features", "rows"], ["mean"]),
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "w"], ["prediction"]),
    ]
    tensors = [
        numpy_helper.from_array(np.array([0], np.int64), "rows"),
        numpy_helper.from_array(WEIGHTS, "w"),
    ]
    rows = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    with pytest.raises(RuntimeFailed, match="depends on the rows beside it"):
        OnnxRuntime(file(graph(steps, tensors)), rows=rows)


def test_half_a_file_is_refused_at_every_length():
    whole = file(product(numpy_helper.from_array(WEIGHTS, "w")))
    assert OnnxRuntime(whole).columns == 5
    for length in range(0, len(whole) - 1, 3):
        with pytest.raises(RuntimeFailed):
            OnnxRuntime(whole[:length])


def test_a_server_without_the_library_says_what_to_install(monkeypatch, opened):
    monkeypatch.delitem(sys.modules, "serving.runtimes.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeFailed, match="not installed; run pip install onnxruntime onnx"):
        opened("onnx", b"")
