"""A look at all replies of a micro-batch at once, to see whether they are as they mostly are.

Where every entity has a packed row of the current generation that agrees with Feast's own, which is
nearly always, the packed rows are the rows, and ``GroupDecoder`` need not look at a group.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from featurestore.online.read_layout import GroupLayout, ReadLayout
from featurestore.online.source import Reply, Source
from featurestore.stores.packed import HEADER, HEADER_BYTES

_WORD = np.dtype("<i8")
_HEADER_WORDS = HEADER_BYTES // 8
_FEW = 4
"""So few entities of a group are looked at one by one: a call of NumPy costs as much as each."""


def plain_rows(
    layout: ReadLayout, parts: Sequence[Sequence[Reply]], source: Source
) -> list[Sequence[bytes]] | None:
    """By group the row of each entity; None if there is one that needs a closer look.

    Args:
        layout: as the store has the views; no view is loading.
        parts: by group the replies, of stamps and packed rows alone.
        source: whose replies they are.
    """
    said: list[Any] = []
    expected: list[np.ndarray] = []
    rows: list[Sequence[bytes]] = []
    for group, replies in zip(layout.groups, parts, strict=True):
        if not replies:
            rows.append([])
            continue
        if len(replies) <= _FEW:
            if not all(_is_plain(group, reply, source) for reply in replies):
                return None
            rows.append([b"".join(reply[1::2]) for reply in replies])
            continue
        columns = list(zip(*replies, strict=True))  # by view: stamps, then packed rows
        for view, packed in enumerate(columns[1::2]):
            heads = _heads(group, view, packed)
            if heads is None:
                return None
            expected.append(source.expected_stamp(heads[:, 1], heads[:, 2]))
            said += columns[2 * view]
        rows.append(reduce(_joined, columns[1::2]))
    if expected and source.stamps(said).tobytes() != np.concatenate(expected).tobytes():
        return None
    return rows


def _is_plain(group: GroupLayout, reply: Reply, source: Source) -> bool:
    for view, length in enumerate(group.lengths):
        stamp, packed = reply[2 * view], reply[2 * view + 1]
        if type(packed) is not bytes or len(packed) != length:
            return False
        tag, event, created = HEADER.unpack_from(packed)
        if tag != group.tag_bytes[8 * view : 8 * view + 8]:
            return False
        if source.stamp(stamp) != source.expected_stamp(event, created):
            return False
    return True


def _heads(group: GroupLayout, view: int, packed: Sequence[Any]) -> np.ndarray | None:
    """The headers of a view's packed rows, int64, shape (entities, 3); None: one is another's."""
    length = group.lengths[view]
    if set(map(type, packed)) != {bytes} or set(map(len, packed)) != {length}:
        return None
    words = np.frombuffer(b"".join(packed), _WORD).reshape(len(packed), length // 8)
    heads = words[:, :_HEADER_WORDS]
    # Comparing bytes costs a fraction of comparing small arrays.
    tag = group.tag_bytes[8 * view : 8 * view + 8]
    return heads if heads[:, 0].tobytes() == tag * len(packed) else None


def _joined(some: Sequence[bytes], more: Sequence[bytes]) -> Sequence[bytes]:
    return list(map(bytes.__add__, some, more))
