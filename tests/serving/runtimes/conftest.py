"""One tiny model of each runtime, of the same five inputs."""

import functools
import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.bundle import GOLDEN, BundleManifest, arrow_bytes, model_file
from headrace.transform import Transform, transform
from serving.predictor import golden_table, load_predictor
from serving.runtimes.runtime import Opening, Runtime, open_runtime

COLUMNS = 5


def tensor(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def model_of(
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
    *,
    outputs: tuple[str, ...] = ("prediction",),
    shape: tuple[object, ...] = ("rows", COLUMNS),
    dtype: int = TensorProto.FLOAT,
) -> bytes:
    """An ONNX file of these nodes."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, dtype, ["rows"]) for name in outputs],
        tensors,
    )
    domains = {node.domain for node in nodes} | {""}
    sets = [helper.make_opsetid(name, 20 if name == "" else 1) for name in sorted(domains)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=10)
    return bytes(model.SerializeToString())


def linear(seed: int = 0) -> bytes:
    """A logistic regression, whose sums take another order for one row than for several."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["known"]),
        helper.make_node("Gemm", ["known", "first", "bias"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["bent"]),
        helper.make_node("Gemm", ["bent", "second"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["chance"]),
        helper.make_node("Reshape", ["chance", "flat"], ["prediction"]),
    ]
    tensors = [
        tensor("zero", np.zeros(1)),
        tensor("first", random.normal(size=(COLUMNS, 24))),
        tensor("bias", random.normal(size=24)),
        tensor("second", random.normal(size=(24, 1)) / 5),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    return model_of(nodes, tensors)


@functools.cache
def network(seed: int = 0) -> bytes:
    """A small PyTorch network with gaps in its inputs, as its ``torch.export`` graph."""
    import torch

    from tasks.fitters.torch_program import program_of

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [torch.nn.Linear(COLUMNS, 24), torch.nn.BatchNorm1d(24), torch.nn.Tanh()]
            self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(24, 1))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            known = torch.where(torch.isnan(rows), 0.0, rows)
            return torch.sigmoid(self.layers(known)).reshape(-1)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return program_of(Network().eval(), COLUMNS)


@pytest.fixture
def matrix() -> Callable[..., np.ndarray]:
    """A factory of rows with gaps."""

    def make(rows: int, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng([rows, seed])
        made = random.normal(size=(rows, COLUMNS)).astype(np.float32)
        made[random.random(made.shape) < 0.2] = np.nan
        return made

    return make


@transform("trees", "network", "column")
def blend(trees, network, column):
    """A function of two nodes and a column."""
    return np.where(np.isnan(column), trees, 0.5 * trees + 0.5 * network)


@transform("values")
def doubled(values):
    """A function of one column."""
    return 2 * values


@pytest.fixture
def functions(monkeypatch) -> dict[str, Transform]:
    """``blend`` and ``doubled`` among the transforms of ``featurestore/transforms/``."""
    module = types.ModuleType("blends")
    made = {"blend": blend, "doubled": doubled}
    for name, function in made.items():
        setattr(module, name, replace(function, name=f"blends.{name}"))
    monkeypatch.setitem(sys.modules, "featurestore.transforms.blends", module)
    return {name: getattr(module, name) for name in made}


@pytest.fixture
def model(booster, bundled, functions, plan) -> Callable[..., bytes]:
    """A factory of models: the bytes of a runtime's file."""

    def ensemble(seed: int) -> bytes:
        members = [bundled("xgboost", seed), bundled("onnx", seed)]
        shares = [{"digest": digest, "weight": 0.5} for digest in members]
        return json.dumps({"scale": "log_odds", "members": shares}).encode()

    def graph(seed: int) -> bytes:
        column = plan.columns[0]
        nodes = [
            {"name": "trees", "digest": bundled("xgboost", seed)},
            {"name": "network", "digest": bundled("onnx", seed), "inputs": {column: "wide"}},
            function("wide", "doubled", column),
            function("answer", "blend", "trees", "network", column),
        ]
        return json.dumps({"nodes": nodes, "output": "answer"}).encode()

    def function(name: str, of: str, *inputs: str) -> dict[str, object]:
        pinned = functions[of].source_sha256
        return {"name": name, "function": f"blends.{of}", "source_sha256": pinned, "inputs": inputs}

    makers = {
        "xgboost": lambda seed: bytes(booster(seed).save_raw("ubj")),
        "onnx": linear,
        "torch": network,
        "ensemble": ensemble,
        "graph": graph,
    }
    return lambda kind, seed=0: makers[kind](seed)


@pytest.fixture
def opened(store, plan, matrix) -> Callable[..., Runtime]:
    """Open a model in its runtime, as ``load_predictor`` does."""

    def open_(kind: str, model: bytes, **changes: object) -> Runtime:
        opening = {
            "columns": plan.columns,
            "member": lambda digest: load_predictor(f"{store.root}/bundles", digest),
            "rows": matrix(64),
        }
        return open_runtime(kind, model, Opening(**(opening | changes)))

    return open_


@pytest.fixture
def bundled(store, plan, matrix, booster) -> Callable[..., str]:
    """Write a bundle of a model and return its digest."""

    def write(kind: str, seed: int = 0, model: bytes | None = None, **changes: object) -> str:
        from serving.runtimes.onnx import OnnxRuntime

        if model is None:
            model = bytes(booster(seed).save_raw("ubj")) if kind == "xgboost" else linear(seed)
        if "predictions" in changes:
            predictions = changes.pop("predictions")
        elif kind == "xgboost":
            predictions = booster(seed).inplace_predict(matrix(20))
        else:
            predictions = OnnxRuntime(model).predict(matrix(20))
        manifest: BundleManifest = store.manifest.model_copy(update={"runtime": kind, **changes})
        golden = golden_table(manifest.plan.columns, matrix(20), predictions)
        files = {model_file(kind): model, GOLDEN: arrow_bytes(golden)}
        return store.bundle(manifest=manifest, **files)

    return write
