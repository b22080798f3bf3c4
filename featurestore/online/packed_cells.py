"""The packed rows of a micro-batch, of all its views, as one matrix of 8-byte words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from featurestore.online.read_layout import ReadLayout
from featurestore.online.source import Source

_WORD, _NUMBER = np.dtype("<i8"), np.dtype("<f8")


class Cells(NamedTuple):
    """What stands in the packed rows; a cell is a row of the batch and a view."""

    stamps: np.ndarray  # int64, shape (rows, views): of Feast's own rows
    event: np.ndarray  # int64, shape (rows, views)
    created: np.ndarray
    values: np.ndarray  # float64, shape (rows, features), C-contiguous
    tagged: np.ndarray  # bool, shape (rows, views): the packed row is of the current generation
    current: np.ndarray  # bool, shape (rows, views): the packed row agrees with Feast's own
    usable: np.ndarray  # both

    @classmethod
    def of(
        cls, layout: ReadLayout, packed: Sequence[bytes], stamps: np.ndarray, source: Source
    ) -> "Cells | None":
        """Cut packed rows into cells; None if together they do not have the right length."""
        rows, views = stamps.shape
        try:
            data = b"".join(packed)
        except TypeError:  # SQLite gives text where somebody put text
            return None
        if len(data) != 8 * rows * layout.words:
            return None
        words = np.frombuffer(data, _WORD) if data else np.empty(0, _WORD)
        words = words.reshape(rows, layout.words)
        heads = words.take(layout.heads, axis=1).reshape(rows, 3, views)
        event, created = heads[:, 1], heads[:, 2]
        tagged = heads[:, 0] == layout.tags
        if layout.earlier is not None:
            tagged |= heads[:, 0] == layout.earlier
        current = stamps == source.expected_stamp(event, created)
        values = words.view(_NUMBER).take(layout.values, axis=1)
        return cls(stamps, event, created, values, tagged, current, tagged & current)


def filled(layout: ReadLayout, packed: list[bytes | None]) -> list[bytes]:
    """The rows by row and view, with a blank one wherever there is none."""
    if None not in packed:
        return packed  # type: ignore[return-value]
    blanks, views = layout.blanks, len(layout.blanks)
    return [blanks[i % views] if row is None else row for i, row in enumerate(packed)]
