"""Forests of every shape, as XGBoost itself reads them, and rows that lie where it matters."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from serving.runtimes.forest.forest import Forest
from serving.runtimes.forest.library import load_kernel
from serving.runtimes.forest.model import read_model

NO_PARENT = 2147483647


@dataclass
class GrownTree:
    """A tree of chance: the arrays of XGBoost's JSON."""

    random: np.random.Generator
    thresholds: list  # an array for each column; None: it has categories
    depth: int
    fullness: float
    nodes: list = field(default_factory=list)
    sets: dict = field(default_factory=dict)

    def grow(self):
        waiting = [self._leaf(0)]
        while waiting:
            node, depth = waiting.pop(int(self.random.integers(len(waiting))))
            if depth == self.depth or (depth and self.random.random() > self.fullness):
                continue
            column = int(self.random.integers(len(self.thresholds)))
            pool = self.thresholds[column]
            if pool is None:
                self.sets[node] = sorted(set(self.random.integers(0, 40, 7).tolist()))
            value = 0.0 if pool is None else float(self.random.choice(pool))
            # XGBoost takes for granted that a right child comes next to the left one.
            waiting += [self._leaf(depth + 1), self._leaf(depth + 1)]
            left, right = len(self.nodes) - 2, len(self.nodes) - 1
            self.nodes[node] = [left, right, column, value, int(self.random.random() < 0.5)]

    def _leaf(self, depth):
        self.nodes.append([-1, -1, 0, float(np.float32(self.random.normal())), 0])
        return len(self.nodes) - 1, depth

    def document(self, number):
        left, right, column, value, default_left = zip(*self.nodes, strict=True)
        sets = dict(sorted(self.sets.items()))
        sizes = [len(each) for each in sets.values()]
        count = len(self.nodes)
        parents = {child: node for node, two in enumerate(self.nodes) for child in two[:2]}
        return {
            "base_weights": [0.0] * count,
            "categories": [one for each in sets.values() for one in each],
            "categories_nodes": list(sets),
            "categories_segments": np.cumsum([0, *sizes])[:-1].tolist(),
            "categories_sizes": sizes,
            "default_left": default_left,
            "id": number,
            "left_children": left,
            "loss_changes": [0.0] * count,
            "parents": [parents.get(node, NO_PARENT) for node in range(count)],
            "right_children": right,
            "split_conditions": value,
            "split_indices": column,
            "split_type": [int(node in sets) for node in range(count)],
            "sum_hessian": [1.0] * count,
            "tree_param": {
                "num_deleted": "0",
                "num_feature": str(len(self.thresholds)),
                "num_nodes": str(count),
                "size_leaf_vector": "1",
            },
        }


def grown(random, *, depth, trees=7, thresholds, fullness=0.9, classes=1, base="5E-1"):
    """The JSON of a model that XGBoost loads, with trees of chance."""
    documents = []
    for number in range(trees * classes):
        tree = GrownTree(random, thresholds, depth, fullness)
        tree.grow()
        documents.append(tree.document(number))
    objective = {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}
    if classes > 1:
        objective = {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": "3"}}
    model = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(documents))},
        "iteration_indptr": list(range(0, len(documents) + 1, classes)),
        "tree_info": [number % classes for number in range(len(documents))],
        "trees": documents,
    }
    learner = {
        "attributes": {},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": f"[{base}]",
            "boost_from_average": "1",
            "num_class": str(classes if classes > 1 else 0),
            "num_feature": str(len(thresholds)),
            "num_target": "1",
        },
        "objective": objective,
    }
    return json.dumps({"learner": learner, "version": [3, 2, 0]}).encode()


def rows_around(random, thresholds, rows):
    """Rows whose values lie below, at and above thresholds, or are odd."""
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e38], np.float32)
    categories = np.array([*range(42), -1, -0.5, 0.5, 3.99, 40, 41, 1e6, 3e9, np.nan], np.float32)
    columns = []
    for pool in thresholds:
        values = categories
        if pool is not None:
            infinity = np.float32(np.inf)
            around = [pool, np.nextafter(pool, infinity), np.nextafter(pool, -infinity)]
            values = np.concatenate([*around, odd, random.normal(size=20).astype(np.float32)])
        columns.append(random.choice(values, rows))
    return np.column_stack(columns).astype(np.float32)


@pytest.fixture(scope="session")
def kernel():
    return load_kernel()


@pytest.fixture(scope="session")
def forest_of(kernel):
    """A factory: the kernel's forest of a booster."""

    def make(booster, **options):
        return Forest(read_model(bytes(booster.save_raw("ubj"))), kernel, **options)

    return make


@pytest.fixture(scope="session")
def booster_of():
    """A factory: XGBoost's booster of a grown model."""
    import xgboost as xgb

    def load(document):
        booster = xgb.Booster(model_file=bytearray(document))
        booster.set_param({"nthread": 1})
        return booster

    return load


@pytest.fixture(scope="session")
def assert_same_bits():
    def check(given, wanted):
        assert given.dtype == wanted.dtype == np.float32
        assert given.shape == wanted.shape
        np.testing.assert_array_equal(given.view(np.uint32), wanted.view(np.uint32))

    return check


@pytest.fixture(scope="session")
def trained():
    """A factory: a booster of six columns, and 700 rows with gaps that it was not trained on."""
    import xgboost as xgb

    def train(*, categories=False, **settings):
        random = np.random.default_rng(7)
        matrix = random.normal(size=(1200, 6)).astype(np.float32)
        matrix[:, 5] = random.integers(0, 30, len(matrix))
        matrix[random.random(matrix.shape) < 0.1] = np.nan
        known = np.nan_to_num(matrix)
        label = known[:, 0] * known[:, 1] + np.sin(known[:, 5]) + random.normal(size=len(matrix))
        objective = settings.setdefault("objective", "reg:squarederror")
        if objective.startswith("multi"):
            settings["num_class"] = 3
            label = np.digitize(label, [-0.5, 0.5])
        elif objective.startswith(("binary", "reg:logistic")):
            label = label > 0
        elif objective != "reg:squarederror":
            label = np.round(np.abs(label)) + 1
        bounds = {"label_lower_bound": label, "label_upper_bound": label}
        data = xgb.DMatrix(
            matrix[:500],
            **{name: bound[:500] for name, bound in bounds.items() if objective == "survival:aft"},
            label=label[:500].astype(np.float32),
            feature_types=["q"] * 5 + ["c" if categories else "q"],
            enable_categorical=True,
        )
        quiet = {"max_depth": 5, "nthread": 1, "verbosity": 0}
        return xgb.train(quiet | settings, data, 12), matrix[500:]

    return train
