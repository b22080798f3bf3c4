"""Where the values of a plan stand in the packed rows of a store, worked out once.

A micro-batch is decoded as one matrix of 8-byte words: a row of it holds the packed rows of all
views, one after the other. This page knows the columns of that matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized
from featurestore.freshness import oldest_age
from featurestore.packed import HEADER_BYTES, number_columns, row_bytes
from featurestore.stored import StoredView
from headrace.plan import NUMBERS, ViewRead

_HEADER_WORDS = HEADER_BYTES // 8


@dataclass(frozen=True)
class ReadLayout:
    """The plan's views, as a store has them now."""

    signature: Any
    """Of the records that this was made from."""
    loading: frozenset[int]
    """Positions of views that are being written from the start."""
    tags: np.ndarray
    """int64, shape (views,): the first word of a packed row that counts."""
    blanks: tuple[bytes, ...]
    """By view: what stands in the matrix for a row that is not there."""
    tag_columns: np.ndarray
    """int64, shape (views,): where each view's tag stands."""
    event_columns: np.ndarray
    created_columns: np.ndarray
    words: int
    """The columns of the matrix."""
    values: np.ndarray
    """int64, shape (features,): the columns of the plan's number features, in its order."""


def read_layout(
    views: Sequence[ViewRead], signature: Any, records: Mapping[str, StoredView], place: str
) -> ReadLayout:
    """Work out where everything stands.

    Args:
        views: what the plan reads.
        signature: of the records.
        records: what the store says of each view.
        place: the store, named in the error.

    Raises:
        FeatureNotMaterialized: if the store does not have a view, or has it without a feature of
            the plan, with another type of it, or with other keys.
    """
    for view in views:
        _check_stored(view, records.get(view.view), place)
    stored = [records[view.view] for view in views]
    sizes = [row_bytes(record.view) // 8 for record in stored]
    starts = np.cumsum([0, *sizes], dtype=np.int64)
    values = []
    for view, record, start in zip(views, stored, starts.tolist(), strict=False):
        columns = number_columns(record.view)
        names = [feature.name for feature in view.features if feature.dtype in NUMBERS]
        values += [start + _HEADER_WORDS + columns[name] for name in names]
    return ReadLayout(
        signature=signature,
        loading=frozenset(position for position, record in enumerate(stored) if record.loading),
        tags=np.array([np.frombuffer(record.tag, "<i8")[0] for record in stored], dtype=np.int64),
        blanks=tuple(bytes(8 * size) for size in sizes),
        tag_columns=starts[:-1],
        event_columns=starts[:-1] + 1,
        created_columns=starts[:-1] + 2,
        words=int(starts[-1]),
        values=np.array(values, dtype=np.int64),
    )


def view_of_number(views: Sequence[ViewRead]) -> np.ndarray:
    """For each number feature of the plan the position of its view, int64, shape (features,)."""
    counts = [len(view.number_columns) for view in views]
    return np.repeat(np.arange(len(views)), counts)


def oldest_ages(views: Sequence[ViewRead]) -> np.ndarray:
    """The greatest age of each view's values, int64 microseconds, shape (views,)."""
    return np.array([oldest_age(view) for view in views], dtype=np.int64)


def _check_stored(view: ViewRead, record: StoredView | None, place: str) -> None:
    if record is None:
        raise FeatureNotMaterialized(f"feature view {view.view}", place)
    stored = {feature.name: feature.dtype for feature in record.view.features}
    wrong = [
        f"{f.name} ({f.dtype}; it has {stored.get(f.name, 'none')})"
        for f in view.features
        if stored.get(f.name) != f.dtype
    ]
    if set(record.view.join_keys) != set(view.join_keys):
        wrong.append(f"the keys {', '.join(f'{k.name} ({k.dtype})' for k in view.join_keys)}")
    if wrong:
        raise FeatureNotMaterialized(f"feature view {view.view} with {', '.join(wrong)}", place)
