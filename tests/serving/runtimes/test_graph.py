import json
import sys
import threading
import types
from dataclasses import replace

import numpy as np
import pytest

from headrace.graph import in_order
from headrace.transform import transform
from serving.errors import RuntimeFailed
from serving.predictor import load_predictor
from serving.runtimes.graph import PARALLEL_ROWS

MEETING = threading.Barrier(2, timeout=10)


@transform("values")
def left(values):
    MEETING.wait()
    return values + 1


@transform("values")
def right(values):
    MEETING.wait()
    return values * 2


@transform("a", "b")
def joined(a, b):
    return a - b


@transform("a")
def broken(a):
    return a[:, 0]


@pytest.fixture
def document(monkeypatch, plan):
    module = types.ModuleType("meeting")
    made = {f.output: replace(f, name=f"meeting.{f.output}") for f in (left, right, joined, broken)}
    for name, function in made.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "featurestore.transforms.meeting", module)

    def write(*nodes, output="joined", **changes):
        steps = [
            {"name": n, "function": f"meeting.{f}", "inputs": i}
            | {"source_sha256": made[f].source_sha256 if f in made else "0"}
            for n, f, i in nodes
        ]
        return json.dumps({"nodes": steps, "output": output} | changes).encode()

    return write


def test_branches_are_computed_at_the_same_time(opened, document, plan, matrix):
    column = plan.columns[0]
    nodes = [
        ("joined", "joined", ["left", "right"]),
        ("left", "left", [column]),
        ("right", "right", [column]),
    ]
    rows = matrix(PARALLEL_ROWS)
    given = opened("graph", document(*nodes), threads=0).predict(rows)  # alone, each waits in vain
    values = rows[:, 0].astype(np.float64)
    np.testing.assert_array_equal(given, ((values + 1) - values * 2).astype(np.float32))


def test_a_graph_gives_what_its_bundles_and_functions_give(model, opened, bundled, store, matrix):
    rows = matrix(200)
    trees, network = (
        load_predictor(f"{store.root}/bundles", bundled(kind)) for kind in ("xgboost", "onnx")
    )
    wide = rows.copy()
    wide[:, 0] = 2 * rows[:, 0].astype(np.float64)
    one = trees.predict(rows).astype(np.float64)
    wanted = np.where(np.isnan(rows[:, 0]), one, 0.5 * one + 0.5 * network.predict(wide))
    given = opened("graph", model("graph")).predict(rows)
    assert given.tobytes() == wanted.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("nodes", "output", "says"),
    [
        ([("a", "joined", ["b", "b"]), ("b", "left", ["a"])], "a", "in a circle: a -> b -> a|b"),
        ([("a", "left", ["colour"])], "a", "node 'a' takes 'colour', which is none of a, weather"),
        ([("a", "left", ["planes__seats"])], "z", "output 'z' is no node; there are a"),
        (
            [("a", "left", ["planes__seats"]), ("b", "left", ["planes__seats"])],
            "a",
            "node 'b' feeds nothing",
        ),
        ([("planes__seats", "left", ["a"])], "planes__seats", "has the name of a column"),
        ([("a", "left", ["planes__seats"])] * 2, "a", "two nodes of one name"),
        ([("a", "nowhere", ["planes__seats"])], "a", "no transform in meeting is named 'nowhere'"),
    ],
)
def test_nodes_that_do_not_fit_together_are_refused_in_a_sentence(
    opened, document, nodes, output, says
):
    with pytest.raises(RuntimeFailed, match=f"the graph could not load the model: .*{says}"):
        opened("graph", document(*nodes, output=output))


def test_a_function_that_was_changed_is_refused(opened, document):
    text = document(("a", "left", ["planes__seats"]), output="a")
    told = json.loads(text)
    told["nodes"][0]["source_sha256"] = "0" * 64
    with pytest.raises(RuntimeFailed, match=r"meeting.left is not the one .* pinned 0000000"):
        opened("graph", json.dumps(told).encode())


def test_a_function_that_fails_is_an_error_of_the_graph(opened, document, matrix):
    runtime = opened("graph", document(("a", "broken", ["planes__seats"]), output="a"))
    with pytest.raises(RuntimeFailed, match=r"function meeting.broken: too many indices"):
        runtime.predict(matrix(3))


def test_a_name_that_its_bundle_does_not_take_is_refused(opened, bundled, plan):
    node = {"name": "a", "digest": bundled("xgboost"), "inputs": {"colour": plan.columns[0]}}
    with pytest.raises(RuntimeFailed, match="node 'a' names 'colour', which its bundle does not"):
        opened("graph", json.dumps({"nodes": [node], "output": "a"}).encode())


def test_every_node_comes_after_those_that_feed_it():
    nodes = {"d": ["b", "c"], "c": ["a"], "b": ["a", "x"], "a": ["x"]}
    order = in_order(nodes, output="d", columns=["x"])
    assert order[0] == "a"
    assert order[-1] == "d"
    assert sorted(order) == sorted(nodes)
