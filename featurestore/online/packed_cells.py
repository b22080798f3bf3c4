"""The packed rows of a group's entities, of all its views, as one matrix of 8-byte words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from featurestore.online.read_layout import GroupLayout
from featurestore.online.source import Source

_WORD = np.dtype("<i8")


class Cells(NamedTuple):
    """What stands in the packed rows; a cell is an entity and a view."""

    words: np.ndarray  # int64, shape (entities, words)
    stamps: np.ndarray  # int64, shape (entities, views): of Feast's own rows
    tagged: np.ndarray  # bool, shape (entities, views): of the current generation
    current: np.ndarray  # bool, shape (entities, views): agrees with Feast's own row
    usable: np.ndarray  # both

    @classmethod
    def of(
        cls, layout: GroupLayout, packed: Sequence[bytes], stamps: np.ndarray, source: Source
    ) -> "Cells | None":
        """Cut packed rows into cells; None if together they do not have the right length."""
        try:
            data = b"".join(packed)
        except TypeError:  # SQLite gives text where somebody put text
            return None
        if len(data) != 8 * len(stamps) * layout.words:
            return None
        words = np.frombuffer(data, _WORD) if data else np.empty(0, _WORD)
        words = words.reshape(len(stamps), layout.words)
        tags, starts = words.take(layout.starts, axis=1), layout.starts
        tagged = tags == layout.tags
        if layout.earlier is not None:
            tagged |= tags == layout.earlier
        event, created = words.take(starts + 1, axis=1), words.take(starts + 2, axis=1)
        current = stamps == source.expected_stamp(event, created)
        return cls(words, stamps, tagged, current, tagged & current)


def filled(layout: GroupLayout, packed: list[bytes | None]) -> list[bytes]:
    """The rows by entity and view, with a blank one wherever there is none."""
    if None not in packed:
        return packed  # type: ignore[return-value]
    blanks, views = layout.blanks, len(layout.blanks)
    return [blanks[i % views] if row is None else row for i, row in enumerate(packed)]
