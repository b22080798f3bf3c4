import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.errors import SpecRefused
from headrace.spec import OnnxModel


@pytest.fixture
def written(tmp_path):
    """A factory of ONNX files: a double for each class, and a label beside it."""

    def write(columns=4):
        weights = np.array([[-1, 1], [-0.1, 0.1], [0, 0], [0, 0]], np.float32)[:columns]
        nodes = [
            helper.make_node("IsNaN", ["x"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "x"], ["known"]),
            helper.make_node("MatMul", ["known", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["chances"]),
            helper.make_node("Cast", ["chances"], ["prediction"], to=TensorProto.DOUBLE),
            helper.make_node("ArgMax", ["chances"], ["label"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "elsewhere",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
                helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["n", 2]),
            ],
            [
                numpy_helper.from_array(weights, "w"),
                numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            ],
        )
        sets = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=10)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        return str(tmp_path / "model.onnx")

    return write


def test_a_file_of_somebody_s_own_becomes_a_bundle(workshop, spec, written):
    trainer = OnnxModel(file=written(), output="prediction", column=1)
    digest, card = workshop.bundle(spec(trainer))
    assert card.metrics["roc_auc"] > 0.85
    row = np.array([[1, np.nan, 0, 0]], np.float32)
    chance = 1 / (1 + np.exp(-2.0))
    assert workshop.load(digest).predict(row)[0] == pytest.approx(chance, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"file": "nowhere.onnx"}, "trainer.file 'nowhere.onnx' cannot be read"),
        ({}, "it has the outputs label, prediction; say which in trainer.output"),
        ({"output": "score"}, "it has no output 'score'; it has label, prediction"),
        ({"output": "prediction"}, "gave 512 values for 256 rows"),
        ({"output": "prediction", "column": 2}, "trainer: ONNX Runtime could not"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_named(workshop, spec, written, fields, says):
    trainer = OnnxModel(**({"file": written()} | fields))
    with pytest.raises(SpecRefused, match=says):
        workshop.bundle(spec(trainer))


def test_a_file_of_other_inputs_is_refused(workshop, spec, written):
    trainer = OnnxModel(file=written(columns=3), output="prediction", column=1)
    with pytest.raises(SpecRefused, match="it has 3 inputs, and the rows 4"):
        workshop.bundle(spec(trainer))


def test_a_file_that_is_no_onnx_is_refused(workshop, spec, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(SpecRefused, match="is no model to use"):
        workshop.bundle(spec(OnnxModel(file=str(tmp_path / "model.onnx"))))


def tensorflow_graph(path):
    """What tf2onnx makes of a Keras model of four inputs: its names, axes, opsets and shapes."""
    random = np.random.default_rng(4)
    first, second = random.normal(size=(4, 8)), random.normal(size=(8, 1))
    layer = "StatefulPartitionedCall/sequential/dense"
    given = "serving_default_features:0"
    nodes = [
        helper.make_node("IsNaN", [given], ["StatefulPartitionedCall/IsNan:0"]),
        helper.make_node(
            "Where", ["StatefulPartitionedCall/IsNan:0", "zeros_like:0", given], ["SelectV2:0"]
        ),
        helper.make_node("MatMul", ["SelectV2:0", f"{layer}/MatMul/ReadVariableOp:0"], ["m:0"]),
        helper.make_node("Add", ["m:0", f"{layer}/BiasAdd/ReadVariableOp:0"], [f"{layer}/Add:0"]),
        helper.make_node("Relu", [f"{layer}/Add:0"], [f"{layer}/Relu:0"], name=f"{layer}/Relu"),
        helper.make_node("MatMul", [f"{layer}/Relu:0", "const_fold_opt__12"], ["n:0"]),
        helper.make_node("Sigmoid", ["n:0"], ["StatefulPartitionedCall:0"]),
    ]
    rows = "unk__13"
    graph = helper.make_graph(
        nodes,
        "tf2onnx",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, [rows, 4])],
        [helper.make_tensor_value_info("StatefulPartitionedCall:0", TensorProto.FLOAT, [rows, 1])],
        [
            numpy_helper.from_array(first.astype("f4"), f"{layer}/MatMul/ReadVariableOp:0"),
            numpy_helper.from_array(np.zeros(8, "f4"), f"{layer}/BiasAdd/ReadVariableOp:0"),
            numpy_helper.from_array(np.zeros(1, "f4"), "zeros_like:0"),
            numpy_helper.from_array(second.astype("f4"), "const_fold_opt__12"),
        ],
    )
    sets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8, producer_name="tf2onnx")
    path.write_bytes(model.SerializeToString())
    return lambda rows: 1 / (1 + np.exp(-np.maximum(rows @ first, 0) @ second))[:, 0]


def test_a_tensorflow_model_that_tf2onnx_converted_becomes_a_bundle(workshop, spec, tmp_path):
    original = tensorflow_graph(tmp_path / "keras.onnx")
    digest, _ = workshop.bundle(spec(OnnxModel(file=str(tmp_path / "keras.onnx"))))
    rows = np.random.default_rng(5).normal(size=(50, 4)).astype(np.float32)
    predictor = workshop.load(digest)
    np.testing.assert_allclose(predictor.predict(rows), original(rows), atol=1e-6)
    assert predictor.bundle.manifest.runtime == "onnx"
