"""Trees as the kernel walks them: full ones, level by level, each node a condition.

A tree of at most six levels is padded to a full one, so that its comparisons need no pointer: node
i has the children 2i and 2i + 1, and the turns taken are the number of the leaf. A taller tree is
cut into such parts. A padded node's condition holds for no row, so every row goes left there.
"""

from dataclasses import dataclass

import numpy as np

from serving.runtimes.forest.model import ForestModel, NotCovered, Tree
from serving.runtimes.forest.records import BYTES, EXIT, PART, PART_HEIGHT, PLANES, TREE

_TABLE = 16  # leaves of a byte table: what one shuffle instruction looks up
_MOST_LEAVES = 1 << PLANES  # of a tree: bits of a leaf's number
ROOT = 0


@dataclass(frozen=True)
class Layout:
    """A forest's trees, as the kernel reads them."""

    trees: np.ndarray
    """TREE."""
    parts: np.ndarray
    """PART, of the trees that have several; a part comes after the one that leads to it."""
    exits: np.ndarray
    """EXIT."""
    slots: np.ndarray
    """uint32: for each node of a full tree, level by level, where its condition lies, in bytes."""
    leaf_bytes: np.ndarray
    """uint8, for each tree of one part: shape (leaves / 16, 4, 16), byte b of each float32."""
    leaf_values: np.ndarray
    """float32: the leaves of the trees of several parts."""
    masks: int
    """The most parts that a tree has."""


def lay_out(model: ForestModel, condition_of: list[np.ndarray]) -> Layout:
    """Return the layout of a forest whose nodes have these conditions.

    Raises:
        NotCovered: if a tree is so deep and wide that its leaves cannot be numbered.
    """
    laid = _Laid()
    for tree, conditions, output in zip(model.trees, condition_of, model.groups, strict=True):
        laid.add(tree, conditions * BYTES, int(output))
    return laid.finished()


class _Laid:
    """Trees laid out so far."""

    def __init__(self) -> None:
        self._trees: list[tuple[int, ...]] = []
        self._parts: list[tuple[int, ...]] = []
        self._exits: list[tuple[int, int]] = []
        self._slots: list[np.ndarray] = []
        self._leaf_bytes: list[np.ndarray] = []
        self._leaf_values: list[np.ndarray] = []
        self._slot_count = self._byte_count = self._value_count = 0

    def add(self, tree: Tree, places: np.ndarray, output: int) -> None:
        heights = _heights(tree)
        height = max(1, int(heights[ROOT]))
        if height <= PART_HEIGHT:
            self._trees.append((height, output, self._slot_count, self._byte_count, 0, 0))
            self._add_bytes(tree.threshold[self._add_slots(tree, places, ROOT, height)])
        else:
            first = len(self._parts)
            leaves = self._add_parts(tree, places, heights)
            count = len(self._parts) - first
            self._trees.append((0, output, 0, self._value_count, first, count))
            self._leaf_values.append(leaves)
            self._value_count += len(leaves)

    def finished(self) -> Layout:
        trees = np.array(self._trees, TREE)
        return Layout(
            trees=trees,
            parts=np.array(self._parts, PART),
            exits=np.array(self._exits, EXIT),
            slots=np.concatenate([*self._slots, np.empty(0, np.uint32)]),
            leaf_bytes=np.concatenate([*self._leaf_bytes, np.empty(0, np.uint8)]),
            leaf_values=np.concatenate([*self._leaf_values, np.empty(0, np.float32)]),
            masks=int(trees["part_count"].max(initial=1)),
        )

    def _add_slots(self, tree: Tree, places: np.ndarray, root: int, height: int) -> np.ndarray:
        """Add the slots of the full tree below a node; return the node that each turn ends in."""
        level = np.array([root])
        for _ in range(height):
            leaf = tree.left[level] < 0
            self._slots.append(places[level].astype(np.uint32))
            turns = [
                np.where(leaf, level, tree.left[level]),
                np.where(leaf, level, tree.right[level]),
            ]
            level = np.stack(turns, axis=1).ravel()
        self._slot_count += (1 << height) - 1
        return level

    def _add_bytes(self, leaves: np.ndarray) -> None:
        table = np.zeros(max(_TABLE, len(leaves)), np.float32)
        table[: len(leaves)] = leaves
        planes = table.view(np.uint8).reshape(-1, _TABLE, 4).transpose(0, 2, 1)
        self._leaf_bytes.append(planes.ravel())
        self._byte_count += planes.size

    def _add_parts(self, tree: Tree, places: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """Add the parts of a tall tree; return its leaves by number."""
        roots, leaves, base = [ROOT], [], 0
        for mask, root in enumerate(roots):  # it grows: parts that are found are appended
            # Low parts are full ones: 8 levels are 2 and then 6, not 6 and then many of 2.
            height = 1 + (int(heights[root]) - 1) % PART_HEIGHT
            size = 1 << height
            gap = -base % size
            base += gap
            slots = self._slot_count
            ends = self._add_slots(tree, places, root, height)
            onward = np.flatnonzero(tree.left[ends] >= 0)
            self._parts.append((height, slots, base, mask, len(self._exits), len(onward)))
            self._exits += [(code, len(roots) + i) for i, code in enumerate(onward.tolist())]
            roots += ends[onward].tolist()
            leaves += [np.zeros(gap, np.float32), tree.threshold[ends]]
            base += size
            if base > _MOST_LEAVES:
                raise NotCovered(f"a tree has over {_MOST_LEAVES} leaves, padding included")
        return np.concatenate(leaves)


def _heights(tree: Tree) -> np.ndarray:
    """Return for each node how many levels lie below it."""
    levels = [np.array([ROOT])]
    while len(inner := levels[-1][tree.left[levels[-1]] >= 0]):
        levels.append(np.concatenate([tree.left[inner], tree.right[inner]]))
    heights = np.zeros(len(tree.left), np.int64)
    for level in reversed(levels):
        inner = level[tree.left[level] >= 0]
        below = np.maximum(heights[tree.left[inner]], heights[tree.right[inner]])
        heights[inner] = below + 1
    return heights
