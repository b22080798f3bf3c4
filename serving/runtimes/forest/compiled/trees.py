"""The second step of a block: each tree finds the leaf of each row, and adds it."""

# Numba, not mypy, knows the types of what it compiles.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

from typing import Any

import numpy as np

from serving.runtimes.forest.compiled.multiplexer import add_leaves, number, take_turns
from serving.runtimes.forest.compiled.registers import (
    array,
    both,
    compiled,
    either,
    every,
    is_empty,
    lane,
    load,
    none,
    store,
    without,
)
from serving.runtimes.forest.records import BYTES, EXIT, GROUP, PART, PLANES, ROWS, TREE


@compiled
def add_trees(job: Any, groups: int, sums: Any) -> None:
    """Add every tree to the sums of the first ``groups`` times 32 rows of a block, in order."""
    trees = array(job.trees, TREE)
    leaf_bytes = array(job.leaf_bytes, np.uint8)
    conditions = array(job.conditions, np.uint8)
    slots = array(job.slots, np.uint32)
    index = array(job.index, np.uint8)
    turns = array(job.turns, np.uint8)
    for t in range(job.tree_count):
        tree = trees[t]
        height, leaves, first = tree.height, tree.leaves, tree.output * ROWS
        if height == 0:
            _add_tall_tree(job, tree, groups, sums)
            continue
        _take_turns(conditions, slots, tree.slots, turns, height)
        number(turns, 0, index)
        for group in range(groups):
            if height == 6:
                add_leaves(index, group, leaf_bytes, leaves, sums, first, 4)
            elif height == 5:
                add_leaves(index, group, leaf_bytes, leaves, sums, first, 2)
            else:
                add_leaves(index, group, leaf_bytes, leaves, sums, first, 1)


@compiled
def _add_tall_tree(job: Any, tree: Any, groups: int, sums: Any) -> None:
    """Add a tree of several parts: bit b of each row's leaf number goes to plane b."""
    parts = array(job.parts, PART)
    masks = array(job.masks, np.uint8)
    planes = array(job.planes, np.uint8)
    conditions = array(job.conditions, np.uint8)
    slots = array(job.slots, np.uint32)
    turns = array(job.turns, np.uint8)
    store(masks, 0, every())
    for plane in range(PLANES):
        store(planes, plane * BYTES, none())
    for p in range(tree.parts, tree.parts + tree.part_count):
        part = parts[p]
        here = load(masks, part.mask * BYTES)
        if is_empty(here):  # as most parts are for few rows
            _close_exits(job, part, masks)
            continue
        _take_turns(conditions, slots, part.slots, turns, part.height)
        staying = _leave(job, part, here, turns, masks)
        _note_leaves(part, staying, turns, planes)
    _gather_leaves(job, tree, groups, sums)


@compiled
def _take_turns(conditions: Any, slots: Any, first: int, turns: Any, height: int) -> None:
    """Call the code that was written for this height."""
    if height == 6:
        take_turns(conditions, slots, first, turns, 6)
    elif height == 5:
        take_turns(conditions, slots, first, turns, 5)
    elif height == 4:
        take_turns(conditions, slots, first, turns, 4)
    elif height == 3:
        take_turns(conditions, slots, first, turns, 3)
    elif height == 2:
        take_turns(conditions, slots, first, turns, 2)
    else:
        take_turns(conditions, slots, first, turns, 1)


@compiled
def _close_exits(job: Any, part: Any, masks: Any) -> None:
    """Write that no row goes on from a part."""
    exits = array(job.exits, EXIT)
    for e in range(part.exits, part.exits + part.exit_count):
        store(masks, exits[e].mask * BYTES, none())


@compiled
def _leave(job: Any, part: Any, here: Any, turns: Any, masks: Any) -> Any:
    """Write which of the rows here go on into each further part; return those that do not."""
    exits = array(job.exits, EXIT)
    staying = here
    for e in range(part.exits, part.exits + part.exit_count):
        way = exits[e]
        going = here
        for bit in range(part.height):
            turn = load(turns, bit * BYTES)
            going = both(going, turn) if (way.code >> bit) & 1 else without(going, turn)
        store(masks, way.mask * BYTES, going)
        staying = without(staying, going)
    return staying


@compiled
def _note_leaves(part: Any, staying: Any, turns: Any, planes: Any) -> None:
    """Set the bits of the leaf's number of the rows that end in a part."""
    for plane in range(PLANES):
        place = plane * BYTES
        if plane < part.height:
            bits = both(staying, load(turns, place))
            store(planes, place, either(load(planes, place), bits))
        elif (part.base >> plane) & 1:
            store(planes, place, either(load(planes, place), staying))


@compiled
def _gather_leaves(job: Any, tree: Any, groups: int, sums: Any) -> None:
    planes = array(job.planes, np.uint8)
    low = array(job.index, np.uint8)
    high = array(job.index + ROWS, np.uint8)
    leaves = array(job.leaf_values + 4 * tree.leaves, np.float32)
    number(planes, 0, low)
    number(planes, 8 * BYTES, high)
    first = np.uint64(tree.output * ROWS)
    for group in range(groups):
        for p in range(GROUP):
            at = np.uint64(group * GROUP) + lane(p)
            leaf = np.uint64(low[at]) | (np.uint64(high[at]) << np.uint64(8))
            sums[first + np.uint64(group * GROUP + p)] += leaves[leaf]
