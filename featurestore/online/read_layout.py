"""Where the values of a plan stand in the packed rows of a store, worked out once.

The packed rows of a group's views lie one after the other: an entity is one row of 8-byte words.
The entities of all groups side by side make the row of a request.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized
from featurestore.freshness import ReadStatus
from featurestore.online.source import Group
from featurestore.stores.packed import HEADER, HEADER_BYTES, number_columns, row_bytes
from featurestore.stores.stored import StoredView
from headrace.plan import NUMBERS, FeaturePlan, ViewRead

_HEADER_WORDS = HEADER_BYTES // 8
_LONG_AGO = -(1 << 62)


@dataclass(frozen=True)
class GroupLayout:
    """The views of one group, as a store has them now; a view's position is the one in the group.

    A tag is the first word of a packed row that counts, as int64.
    """

    tags: np.ndarray
    """Shape (views,)."""
    tag_bytes: bytes
    """All tags, one after the other."""
    earlier: np.ndarray | None
    """As ``tags``, of the generation before: while a view is written anew without having changed,
    its earlier rows still count. None: no view is."""
    loading: tuple[int, ...]
    """Positions of the views that are being written from the start."""
    lengths: list[int]
    """By view: the bytes of a packed row."""
    blanks: tuple[bytes, ...]
    """By view: what stands for a packed row that is not there."""
    never_seen: bytes
    """The row of an entity that does not exist."""
    unavailable: bytes
    """The row of an entity that could not be asked for."""
    starts: np.ndarray
    """int64, shape (views,): the word with the tag; event and created time follow."""
    words: int
    """How many words an entity has."""
    columns: tuple[dict[str, int], ...]
    """By view: the word of each number feature that the store has."""


@dataclass(frozen=True)
class ReadLayout:
    """The plan's views, as a store has them now."""

    signature: Any
    """Of the records that this was made from."""
    groups: tuple[GroupLayout, ...]
    identity: bytes
    """Equal for layouts under which rows mean the same."""
    is_loading: bool
    """Whether a view is being written from the start."""
    header: struct.Struct
    """Unpacks the tag (bytes), event and created time of each view from a request's row."""
    tag_bytes: tuple[bytes, ...]
    tags: np.ndarray
    """int64, shape (views,)."""
    words: int
    """How many words the row of a request has."""
    starts: np.ndarray
    """int64, shape (views,): the words with the tags in the row of a request."""
    events: np.ndarray
    """The same, with the event times."""
    created: np.ndarray
    values: np.ndarray
    """int64, shape (features,): the words of the plan's number features, in its order."""


def read_layout(
    plan: FeaturePlan,
    groups: Sequence[Group],
    records: Mapping[str, StoredView],
    *,
    signature: Any,
    place: str,
) -> ReadLayout:
    """Work out where everything stands.

    Args:
        plan: what is read.
        groups: the views of the plan, in the order in which their words stand.
        records: what the store says of each view.
        signature: of the records.
        place: the store, named in the error.

    Raises:
        FeatureNotMaterialized: if the store does not have a view, or has it without a feature of
            the plan, with another type of it, or with other keys.
    """
    views = [view for group in groups for view in group.views]
    for view in views:
        _check_stored(view, records.get(view.view), place)
    stored = [records[view.view] for view in views]
    laid = tuple(_group_layout([records[v.view] for v in group.views]) for group in groups)
    firsts = np.cumsum([0, *(group.words for group in laid)])[:-1]
    starts = np.concatenate(
        [np.empty(0, np.int64), *(f + g.starts for f, g in zip(firsts, laid, strict=True))]
    )
    word_of = {
        (view.view, name): int(first) + word
        for first, group, layout in zip(firsts, groups, laid, strict=True)
        for view, columns in zip(group.views, layout.columns, strict=True)
        for name, word in columns.items()
    }
    values = [
        word_of[view.view, f.name] for view in plan.views for f in view.features
        if f.dtype in NUMBERS
    ]  # fmt: skip
    rests = [length - HEADER_BYTES for group in laid for length in group.lengths]
    tags = tuple(record.tag for record in stored)
    return ReadLayout(
        signature=signature,
        groups=laid,
        identity=b"".join([*tags, *(b"+" if record.loading else b"-" for record in stored)]),
        is_loading=any(record.loading for record in stored),
        header=struct.Struct("<" + "".join(f"8sqq{rest}x" for rest in rests)),
        tag_bytes=tags,
        tags=_words(tags),
        words=sum(group.words for group in laid),
        starts=starts,
        events=starts + 1,
        created=starts + 2,
        values=np.array(values, dtype=np.int64),
    )


def _group_layout(stored: Sequence[StoredView]) -> GroupLayout:
    sizes = [row_bytes(record.view) // 8 for record in stored]
    starts = np.cumsum([0, *sizes], dtype=np.int64)
    blanks = tuple(_blank(size) for size in sizes)
    return GroupLayout(
        tags=_words([record.tag for record in stored]),
        tag_bytes=b"".join([record.tag for record in stored]),
        earlier=_earlier_tags(stored),
        loading=tuple(position for position, record in enumerate(stored) if record.loading),
        lengths=[8 * size for size in sizes],
        blanks=blanks,
        never_seen=_row_of(ReadStatus.NEVER_SEEN, blanks),
        unavailable=_row_of(ReadStatus.UNAVAILABLE, blanks),
        starts=starts[:-1],
        words=int(starts[-1]),
        columns=tuple(
            {name: int(start) + _HEADER_WORDS + at for name, at in number_columns(r.view).items()}
            for start, r in zip(starts, stored, strict=False)
        ),
    )


def _blank(words: int) -> bytes:
    """A row with no tag, and times that no row of Feast's can have."""
    return HEADER.pack(bytes(8), _LONG_AGO, _LONG_AGO) + bytes(8 * (words - _HEADER_WORDS))


def _row_of(status: ReadStatus, blanks: Sequence[bytes]) -> bytes:
    """Blank packed rows that say instead of a tag why."""
    word = int(status).to_bytes(8, "little")
    return b"".join([word + blank[len(word) :] for blank in blanks])


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
