"""An XGBoost model as plain arrays: trees, the group that each adds to, and what follows the sum.

What is not told here is not covered, and XGBoost's own predictor answers such a model: linear
boosters, trees with several values a leaf, objectives whose last step is not in ``TRANSFORMS``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.mapped import Data
from serving.errors import ServingError
from serving.runtimes.forest.ubjson import NotUbjson, read_ubjson

IDENTITY, SIGMOID, EXP, SOFTMAX, ARGMAX, HINGE = range(6)
"""What an objective makes of the sum of the leaves (XGBoost: ``PredTransform``)."""

TRANSFORMS = {
    "reg:squarederror": IDENTITY,
    "reg:squaredlogerror": IDENTITY,
    "reg:absoluteerror": IDENTITY,
    "reg:pseudohubererror": IDENTITY,
    "binary:logitraw": IDENTITY,
    "rank:ndcg": IDENTITY,
    "rank:map": IDENTITY,
    "rank:pairwise": IDENTITY,
    "binary:logistic": SIGMOID,
    "reg:logistic": SIGMOID,
    "count:poisson": EXP,
    "reg:gamma": EXP,
    "reg:tweedie": EXP,
    "survival:cox": EXP,
    "multi:softprob": SOFTMAX,
    "multi:softmax": ARGMAX,
    "binary:hinge": HINGE,
}
_ONE = np.float32(1)


class NotCovered(ServingError):
    """The kernel cannot answer for this model; XGBoost's own predictor can."""


class TreesBroken(NotCovered):
    """The trees contradict themselves: whoever walks them may leave the memory that is theirs."""


@dataclass(frozen=True)
class Tree:
    """One tree; every array has an entry for each node, the root first."""

    feature: np.ndarray
    """int64: the column that a node looks at."""
    threshold: np.ndarray
    """float32: a value below it goes left; of a leaf: its value, weighted."""
    left: np.ndarray
    """int64: the node to the left, -1 for a leaf."""
    right: np.ndarray
    default_left: np.ndarray
    """bool: where a missing value goes."""
    categories: Mapping[int, frozenset[int]]
    """The categories that go right, of each node that splits by category."""

    def is_leaf(self, node: int) -> bool:
        """Whether the node has a value and no children."""
        return bool(self.left[node] < 0)


@dataclass(frozen=True)
class ForestModel:
    """What XGBoost's predictor needs of a model."""

    trees: tuple[Tree, ...]
    groups: np.ndarray
    """int32, shape (trees,): the output that a tree adds to, its class."""
    base: np.ndarray
    """float32, shape (outputs,): what every row begins with, before the transform."""
    transform: int
    """One of the numbers of ``TRANSFORMS``."""
    columns: int


def read_model(model: Data) -> ForestModel:
    """Read a model in XGBoost's UBJSON or JSON.

    Raises:
        TreesBroken: if a tree leads to nodes, columns or outputs that are not there.
        NotCovered: for what the kernel has no form of, or cannot read.
    """
    try:
        forest = _read(model)
        _check(forest)
        return forest
    except (LookupError, ValueError, TypeError, OverflowError, NotUbjson) as error:
        raise NotCovered(f"it is not written as XGBoost 3 writes: {error!r}") from error


def _read(model: Data) -> ForestModel:
    # JSON and UBJSON both begin with a brace; a quoted name follows in JSON alone.
    document = json.loads(bytes(model)) if model[1:2] in b'"\n ' else read_ubjson(model)
    learner = document["learner"]
    booster = learner["gradient_booster"]
    weights = None
    if booster["name"] == "dart":
        weights = np.asarray(booster["weight_drop"], np.float32)
        booster = booster["gbtree"]
    elif booster["name"] != "gbtree":
        raise NotCovered(f"its booster is {booster['name']}")
    model_of = booster["model"]
    objective = learner["objective"]["name"]
    if objective not in TRANSFORMS:
        raise NotCovered(f"its objective is {objective}")
    groups = np.asarray(model_of["tree_info"], np.int32)
    parameters = learner["learner_model_param"]
    outputs = max(1, int(parameters["num_class"]))
    if int(parameters.get("num_target", "1")) > 1:
        raise NotCovered(f"it has {parameters['num_target']} targets")
    scores = _base_scores(parameters["base_score"], outputs)
    if len(scores) != outputs:
        raise TreesBroken(f"it has {len(scores)} base scores for {outputs} outputs")
    base = _margin(scores, TRANSFORMS[objective])
    trees = tuple(_tree(tree) for tree in model_of["trees"])
    if weights is not None:
        if not len(weights) == len(groups) == len(trees):
            raise TreesBroken(f"it has {len(trees)} trees and {len(weights)} weights")
        trees = tuple(map(_weighted, trees, weights, base[groups]))
    return ForestModel(
        trees=trees,
        groups=groups,
        base=base,
        transform=TRANSFORMS[objective],
        columns=int(parameters["num_feature"]),
    )


def _check(forest: ForestModel) -> None:
    """Raise ``TreesBroken`` unless every number in the trees leads to what is there.

    XGBoost's own loader looks at little of this, and neither predictor at any while it walks.
    """
    groups, outputs = forest.groups, len(forest.base)
    if len(groups) != len(forest.trees) or ((groups < 0) | (groups >= outputs)).any():
        raise TreesBroken(f"its trees do not each add to one of {outputs} outputs")
    for number, tree in enumerate(forest.trees):
        if wrong := _wrong(tree, forest.columns):
            raise TreesBroken(f"tree {number} {wrong}")


def _wrong(tree: Tree, columns: int) -> str | None:
    nodes = len(tree.left)
    arrays = (tree.right, tree.feature, tree.threshold, tree.default_left)
    if not nodes or any(len(array) != nodes for array in arrays):
        return "does not say the same of each node"
    inner = np.flatnonzero(tree.left >= 0)
    children = np.concatenate([tree.left[inner], tree.right[inner]])
    if ((children < 1) | (children >= nodes)).any():
        return "has a child that is not there"
    if len(np.unique(children)) < len(children):  # each one parent: then no walk goes in a circle
        return "has a node that two nodes lead to"
    looked_at = tree.feature[inner]
    if ((looked_at < 0) | (looked_at >= columns)).any():
        return f"looks at a column that is none of the {columns}"
    if any(
        not 0 <= node < nodes or min(members, default=0) < 0
        for node, members in tree.categories.items()
    ):
        return "has a category below 0, or categories of a node that is not there"
    return "compares with NaN" if np.isnan(tree.threshold[inner]).any() else None


def _tree(tree: Mapping[str, Any]) -> Tree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotCovered("its leaves have several values")
    left, right = (np.asarray(tree[f"{side}_children"], np.int64) for side in ("left", "right"))
    if (right[left >= 0] != left[left >= 0] + 1).any():
        # XGBoost never writes such a tree, and would not look at where its right children are.
        raise NotCovered("a right child does not come next to the left one")
    sets = np.asarray(tree["categories"], np.int64)
    _check_segments(tree, len(sets))
    ranges = zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    )
    return Tree(
        feature=np.asarray(tree["split_indices"], np.int64),
        threshold=np.asarray(tree["split_conditions"], np.float32),
        left=left,
        right=right,
        default_left=np.asarray(tree["default_left"], bool),
        categories={
            int(node): frozenset(sets[begin : begin + size].tolist())
            for node, begin, size in ranges
        },
    )


def _check_segments(tree: Mapping[str, Any], categories: int) -> None:
    begin = np.asarray(tree["categories_segments"], np.int64)
    size = np.asarray(tree["categories_sizes"], np.int64)
    if len(begin) != len(size) or ((begin < 0) | (size < 0) | (begin + size > categories)).any():
        raise TreesBroken("a set of categories is not among those that its tree lists")


def _base_scores(written: str, outputs: int) -> np.ndarray:
    # Since 3.1 a list of one score an output, before that a number: "[5E-1]" and "5E-1".
    scores = np.atleast_1d(np.asarray(json.loads(written), np.float32))
    return np.full(outputs, scores[0], np.float32) if len(scores) == 1 else scores


def _weighted(tree: Tree, weight: np.float32, base: np.float32) -> Tree:
    """Return a tree whose leaves are what a dropout booster adds for them.

    XGBoost's in-place prediction lets each tree of such a booster predict on its own, from the base
    score, and takes the base score off again, which rounds.
    """
    return replace(
        tree,
        threshold=np.where(
            tree.left < 0, ((base + tree.threshold) - base) * weight, tree.threshold
        ),
    )


def _margin(scores: np.ndarray, transform: int) -> np.ndarray:
    """Return what the scores are before the transform (XGBoost: ``ProbToMargin``).

    The C library's ``logf`` is exact where rounding from double is; NumPy's own is not.
    """
    if transform == SIGMOID:  # of a chance between 0 and 1; XGBoost takes no other
        return np.array([-math.log(odds) for odds in (_ONE / scores - _ONE).tolist()], np.float32)
    if transform == EXP:
        return np.array([math.log(score) for score in scores.tolist()], np.float32)
    return scores
