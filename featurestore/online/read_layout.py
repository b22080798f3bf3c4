"""Where the values of a plan stand in the packed rows of a store, worked out once.

A micro-batch is decoded as one matrix of 8-byte words: a row of it holds the packed rows of all
views, one after the other. This page knows the columns of that matrix.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized
from featurestore.stores.packed import HEADER, HEADER_BYTES, number_columns, row_bytes
from featurestore.stores.stored import StoredView
from headrace.plan import NUMBERS, FeaturePlan, ViewRead

_HEADER_WORDS = HEADER_BYTES // 8
_LONG_AGO = -(1 << 62)


@dataclass(frozen=True)
class ReadLayout:
    """The plan's views, as a store has them now."""

    signature: Any
    """Of the records that this was made from."""
    loading: frozenset[int]
    """Positions of the views that are being written from the start."""
    tags: np.ndarray
    """int64, shape (views,): the first word of a packed row that counts."""
    header: struct.Struct
    """Unpacks the tag (bytes), event and created time of each view from a whole row."""
    earlier: np.ndarray | None
    """As ``tags``, of the generation before: while a view is written anew without having changed,
    its earlier rows still count. None: no view is."""
    tag_bytes: tuple[bytes, ...]
    lengths: list[int]
    """By view: the bytes of a packed row."""
    blanks: tuple[bytes, ...]
    """By view: what stands in the matrix for a row that is not there."""
    heads: np.ndarray
    """int64, shape (3 * views,): the columns of all tags, then of all event and created times."""
    words: int
    """The columns of the matrix."""
    values: np.ndarray
    """int64, shape (features,): the columns of the plan's number features, in its order."""


def read_layout(
    plan: FeaturePlan,
    views: Sequence[ViewRead],
    records: Mapping[str, StoredView],
    *,
    signature: Any,
    place: str,
) -> ReadLayout:
    """Work out where everything stands.

    Args:
        plan: what is read.
        views: those of the plan, in the order in which they stand in the matrix.
        records: what the store says of each view.
        signature: of the records.
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
    first = dict(zip((view.view for view in views), starts.tolist(), strict=False))
    values = [
        first[view.view] + _HEADER_WORDS + number_columns(records[view.view].view)[feature.name]
        for view in plan.views
        for feature in view.features
        if feature.dtype in NUMBERS
    ]
    return ReadLayout(
        signature=signature,
        loading=frozenset(position for position, record in enumerate(stored) if record.loading),
        tags=_words([record.tag for record in stored]),
        header=struct.Struct("<" + "".join(f"8sqq{8 * (s - _HEADER_WORDS)}x" for s in sizes)),
        earlier=_earlier_tags(stored),
        tag_bytes=tuple(record.tag for record in stored),
        lengths=[8 * size for size in sizes],
        blanks=tuple(_blank(size) for size in sizes),
        heads=np.concatenate([starts[:-1], starts[:-1] + 1, starts[:-1] + 2]),
        words=int(starts[-1]),
        values=np.array(values, dtype=np.int64),
    )


def _blank(words: int) -> bytes:
    """A row with no tag, and times that no row of Feast's can have."""
    return HEADER.pack(bytes(8), _LONG_AGO, _LONG_AGO) + bytes(8 * (words - _HEADER_WORDS))


def _earlier_tags(stored: Sequence[StoredView]) -> np.ndarray | None:
    if not any(record.loading for record in stored):
        return None
    # Tags are made of definition and generation: rows of another definition have another one.
    before = [r.model_copy(update={"generation": r.generation - 1}) for r in stored]
    pairs = zip(stored, before, strict=True)
    return _words([(earlier if now.loading else now).tag for now, earlier in pairs])


def _words(tags: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(tags), "<i8") if tags else np.empty(0, np.int64)


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
