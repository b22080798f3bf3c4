"""The different questions that a forest asks, each asked once for a block of rows.

Many nodes share a question ("is column 3 at least 0.25, and does missing count as yes?"): 200 trees
of depth 6 trained by histogram ask some 4,000 for their 12,000 nodes. A question is a condition;
its number is a place among the bit vectors that the kernel makes for a block, where bit r answers
for row r: 1 goes right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.runtimes.forest.buckets import spread
from serving.runtimes.forest.model import ForestModel, NotCovered
from serving.runtimes.forest.records import FEATURE, SET

NEVER = 0
"""The condition that holds for no row: every row goes left. Trees are padded with it."""
_MOST = (1 << 16) - 2  # thresholds of a column: ranks are 16 bits wide


@dataclass(frozen=True)
class Conditions:
    """The conditions of a forest, as the kernel reads them."""

    count: int
    features: np.ndarray
    """FEATURE, one for each column that is looked at."""
    sets: np.ndarray
    """SET."""
    members: np.ndarray
    """int64: the categories of each set."""
    thresholds: np.ndarray
    """float32: ascending for each column, then NaN, which no value reaches."""
    starts: np.ndarray
    """uint16, for each bucket of a column: how many thresholds lie in the buckets before it."""


def number_conditions(model: ForestModel) -> tuple[Conditions, list[np.ndarray]]:
    """Return a forest's conditions and, for each tree, the condition of each node.

    Raises:
        NotCovered: if a column has too many thresholds or categories, or has both.
    """
    sizes = [len(tree.left) for tree in model.trees]
    feature = np.concatenate([tree.feature for tree in model.trees])
    inner = np.concatenate([tree.left for tree in model.trees]) >= 0
    # -0.0 and 0.0 are one threshold.
    threshold = np.concatenate([tree.threshold for tree in model.trees]) + np.float32(0)
    missing_left = np.concatenate([tree.default_left for tree in model.trees])
    sets = _sets_of_nodes(model)
    condition_of = np.full(len(feature), NEVER, np.int64)
    numbering = _Numbering()
    for column in np.unique(feature[inner]):
        nodes = np.flatnonzero(inner & (feature == column))
        by_category = [sets[node] for node in nodes.tolist() if node in sets]
        if not by_category:
            numbers = numbering.by_value(int(column), threshold[nodes], missing_left[nodes])
        elif len(by_category) == len(nodes):
            numbers = numbering.by_category(int(column), by_category, missing_left[nodes])
        else:
            raise NotCovered(f"column {column} is split by value and by category")
        condition_of[nodes] = numbers
    return numbering.finished(), np.split(condition_of, np.cumsum(sizes)[:-1])


def _sets_of_nodes(model: ForestModel) -> dict[int, frozenset[int]]:
    sets: dict[int, frozenset[int]] = {}
    first = 0
    for tree in model.trees:
        sets |= {first + node: categories for node, categories in tree.categories.items()}
        first += len(tree.left)
    return sets


class _Numbering:
    """Conditions that are being numbered, column by column."""

    def __init__(self) -> None:
        self._count = NEVER + 1
        self._features: list[dict[str, float | np.float32]] = []
        self._sets: list[tuple[int, bool, int, int]] = []
        self._members: list[int] = []
        self._thresholds: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []

    def by_value(self, column: int, threshold: np.ndarray, missing_left: np.ndarray) -> np.ndarray:
        """Number the conditions of nodes that compare: one a threshold and way of the missing."""
        distinct = np.unique(threshold)
        if len(distinct) > _MOST:
            raise NotCovered(f"column {column} has {len(distinct)} thresholds, over {_MOST}")
        left = self._take(len(distinct)) if missing_left.any() else 0
        right = self._take(len(distinct)) if not missing_left.all() else 0
        buckets = spread(distinct)
        self._features.append(
            {
                "column": column,
                "count": len(distinct),
                "thresholds": sum(map(len, self._thresholds)),
                "starts": sum(map(len, self._starts)),
                "left": left,
                "right": right,
                "low": buckets.low,
                "scale": buckets.scale,
                "last": buckets.last,
                "steps": buckets.steps,
            }
        )
        # The search may look this far behind the last threshold.
        padding = np.full(1 << buckets.steps, np.nan, np.float32)
        self._thresholds += [distinct, padding]
        self._starts.append(buckets.starts)
        return np.where(missing_left, left, right) + np.searchsorted(distinct, threshold)

    def by_category(
        self, column: int, categories: Sequence[frozenset[int]], missing_left: np.ndarray
    ) -> np.ndarray:
        """Number the conditions of nodes with categories: one a set and way of the missing."""
        count = 1 + max(max(each, default=0) for each in categories)
        if count > _MOST:
            raise NotCovered(f"column {column} has {count} categories, over {_MOST}")
        asked = list(zip(categories, (~missing_left).tolist(), strict=True))
        numbers = {question: self._take(1) for question in dict.fromkeys(asked)}
        self._features.append(
            {
                "column": column,
                "categorical": True,
                "count": count,
                "sets": len(self._sets),
                "set_count": len(numbers),
            }
        )
        for (members, missing_right), number in numbers.items():
            self._sets.append((number, missing_right, len(self._members), len(members)))
            self._members += sorted(members)
        return np.array([numbers[question] for question in asked])

    def finished(self) -> Conditions:
        """Return what was numbered."""
        features = np.zeros(len(self._features), FEATURE)
        for record, fields in zip(features, self._features, strict=True):
            for name, value in fields.items():
                record[name] = value
        return Conditions(
            count=self._count,
            features=features,
            sets=np.array(self._sets, SET),
            members=np.array(self._members, np.int64),
            thresholds=np.concatenate([*self._thresholds, np.empty(0, np.float32)]),
            starts=np.concatenate([*self._starts, np.empty(0, np.uint16)]),
        )

    def _take(self, many: int) -> int:
        self._count += many
        return self._count - many
