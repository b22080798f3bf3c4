"""A view's values of one entity as one packed value: the copy that Headrace reads.

Feast's layout keeps a message for each feature, which is dear to read. Beside it, written in the
same step, the online store keeps this copy, little-endian::

    bytes 0-7    tag: which definition and generation of the view wrote it (``tag_of``)
    bytes 8-15   event time, int64 microseconds since 1970 in UTC
    bytes 16-23  created time, the same
    then         one float64 for each number feature, in the definition's order; NaN is null

Features that are no numbers (``NUMBERS``) are read from Feast's own messages. A copy counts only
while its event time is the one that Feast's layout has for the view: where another Feast client has
written since, Feast's messages are the truth.
"""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from headrace.plan import NUMBERS, ViewRead

HEADER_BYTES = 24
HEADER = struct.Struct("<8sqq")
"""Tag, event time and created time."""


def tag_of(definition: str, generation: int) -> bytes:
    """The 8 bytes that mark the rows of one definition, written in one generation.

    Args:
        definition: as ``featurestore.stores.stored.stored_definition`` writes it.
        generation: how often the view has been written anew; rows of others are stale.
    """
    return hashlib.sha256(f"{generation} {definition}".encode()).digest()[:8]


def number_columns(view: ViewRead) -> dict[str, int]:
    """Where each number feature of a stored view stands in its packed values."""
    names = [feature.name for feature in view.features if feature.dtype in NUMBERS]
    return {name: position for position, name in enumerate(names)}


def row_bytes(view: ViewRead) -> int:
    """The length of one packed row of a stored view."""
    return HEADER_BYTES + 8 * len(number_columns(view))


def pack_rows(
    tag: bytes, event_us: np.ndarray, created_us: np.ndarray, numbers: Sequence[np.ndarray]
) -> np.ndarray:
    """Pack rows: uint8, shape (rows, HEADER_BYTES + 8 * len(numbers)), C-contiguous.

    Args:
        tag: 8 bytes of ``tag_of``.
        event_us: int64, shape (rows,), microseconds.
        created_us: int64, shape (rows,), microseconds.
        numbers: one float64 column a number feature, shape (rows,), in the definition's order.
    """
    words = np.empty((len(event_us), HEADER_BYTES // 8 + len(numbers)), dtype="<i8")
    words[:, 0] = struct.unpack("<q", tag)[0]
    words[:, 1] = event_us
    words[:, 2] = created_us
    for position, column in enumerate(numbers):
        words[:, 3 + position] = column.astype("<f8", copy=False).view("<i8")
    return words.view(np.uint8)
