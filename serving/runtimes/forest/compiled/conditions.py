"""The first step of a block: every condition answered once, as a bit of each row."""

# Numba, not mypy, knows the types of what it compiles.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

from typing import Any

import numpy as np

from serving.runtimes.forest.compiled.registers import (
    array,
    compiled,
    either,
    lane,
    load,
    none,
    store,
)
from serving.runtimes.forest.records import BYTES, FEATURE, GROUP, SET

_ZERO = np.float32(0)


@compiled
def answer_conditions(job: Any, first: int, rows: int) -> None:
    """Write the bit vector of each condition, for rows of the job from ``first`` on."""
    features = array(job.features, FEATURE)
    columns = array(job.columns, np.int64)
    values = array(job.values, np.float32)
    seen = array(job.seen, np.uint8)
    for f in range(job.feature_count):
        feature = features[f]
        column = array(columns[feature.column], np.float32)
        for row in range(rows):
            values[row] = column[(first + row) * job.row_stride]
        if feature.categorical:
            _see_categories(feature.count, values, rows, seen)
            _gather_sets(job, feature, seen)
        else:
            _see_ranks(job, feature, values, rows, seen)
            _gather_ranks(job, feature, seen)


@compiled
def _see_ranks(job: Any, feature: Any, values: Any, rows: int, seen: Any) -> None:
    """Set the bit of each row at its value's rank: how many thresholds are not above it."""
    thresholds = array(job.thresholds + 4 * feature.thresholds, np.float32)
    starts = array(job.starts + 2 * feature.starts, np.uint16)
    buckets = array(job.buckets, np.int32)
    low, scale, last = feature.low, feature.scale, feature.last
    for row in range(rows):
        bucket = (values[row] - low) * scale
        bucket = bucket if bucket > _ZERO else _ZERO  # noqa: FURB136 -- of NaN too
        buckets[row] = np.int32(bucket if bucket < last else last)  # noqa: FURB136
    missing = np.uint64(feature.count + 1)
    steps = feature.steps
    for begin in range(0, rows, GROUP):
        bit = np.uint8(1 << (begin // GROUP))
        for p in range(min(GROUP, rows - begin)):
            row = np.uint64(begin + p)
            value = values[row]
            rank = np.uint64(starts[np.uint64(np.uint32(buckets[row]))])
            if steps == 1:
                rank += np.uint64(value >= thresholds[rank])
            else:
                step = np.uint64(1 << (steps - 1))
                while step:
                    rank += step * np.uint64(value >= thresholds[rank + step - np.uint64(1)])
                    step >>= np.uint64(1)
            rank = missing if value != value else rank  # noqa: PLR0124 -- NaN
            seen[rank * np.uint64(BYTES) + lane(p)] |= bit


@compiled
def _gather_ranks(job: Any, feature: Any, seen: Any) -> None:
    """Answer a column's conditions: threshold t is reached by every rank above t."""
    conditions = array(job.conditions, np.uint8)
    left, right = feature.left, feature.right
    missing = load(seen, BYTES * (feature.count + 1))
    reached = none()
    for rank in range(feature.count, 0, -1):
        reached = either(reached, load(seen, BYTES * rank))
        if left:
            store(conditions, BYTES * (left + rank - 1), reached)
        if right:
            store(conditions, BYTES * (right + rank - 1), either(reached, missing))
        store(seen, BYTES * rank, none())
    store(seen, 0, none())
    store(seen, BYTES * (feature.count + 1), none())


@compiled
def _see_categories(count: int, values: Any, rows: int, seen: Any) -> None:
    """Set the bit of each row at its category plus 1; at 0 where no set has the category."""
    for row in range(rows):
        value = values[row]
        place = np.uint64(0)
        if value != value:  # noqa: PLR0124 -- NaN
            place = np.uint64(count + 1)
        elif value >= _ZERO and value < np.float32(count):
            place = np.uint64(np.int64(value)) + np.uint64(1)
        seen[place * np.uint64(BYTES) + lane(row % GROUP)] |= np.uint8(1 << (row // GROUP))


@compiled
def _gather_sets(job: Any, feature: Any, seen: Any) -> None:
    """Answer a column's conditions: a set's is reached by each of its members."""
    conditions = array(job.conditions, np.uint8)
    sets = array(job.sets, SET)
    members = array(job.members, np.int64)
    missing = load(seen, BYTES * (feature.count + 1))
    for s in range(feature.sets, feature.sets + feature.set_count):
        one = sets[s]
        reached = missing if one.missing_right else none()
        for m in range(one.members, one.members + one.count):
            reached = either(reached, load(seen, BYTES * (members[m] + 1)))
        store(conditions, BYTES * one.condition, reached)
    for place in range(feature.count + 2):
        store(seen, BYTES * place, none())
