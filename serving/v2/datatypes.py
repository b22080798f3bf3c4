"""The tensor datatypes of the Open Inference Protocol, and what each may hold.

Source: https://github.com/kserve/open-inference-protocol, required_api.md, "Tensor Data Types".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.fields import FLOAT32


@dataclass(frozen=True)
class Datatype:
    """One datatype: how it is written in JSON, and how it lies in bytes."""

    name: str
    json: frozenset[type]
    """The Python types of its JSON values; null is a missing value of any datatype."""
    wire: np.dtype[Any] | None = None
    """Its little-endian bytes; None for BYTES, whose elements have lengths of their own."""
    low: float = -FLOAT32
    high: float = FLOAT32
    """Bounds of its values; a float must fit the 32-bit float that the model sees."""

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers."""
        return self.wire is not None and self.wire.kind in "iu"


def _whole(name: str, wire: str) -> Datatype:
    bounds = np.iinfo(wire)
    return Datatype(name, frozenset({int}), np.dtype(wire), int(bounds.min), int(bounds.max))


_FLOAT = frozenset({int, float})

DATATYPES = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", frozenset({bool}), np.dtype("?"), 0, 1),
        *(_whole(f"UINT{8 * size}", f"<u{size}") for size in (1, 2, 4, 8)),
        *(_whole(f"INT{8 * size}", f"<i{size}") for size in (1, 2, 4, 8)),
        Datatype("FP16", _FLOAT, np.dtype("<f2"), -65504.0, 65504.0),
        Datatype("FP32", _FLOAT, np.dtype("<f4")),
        Datatype("FP64", _FLOAT, np.dtype("<f8")),
        Datatype("BYTES", frozenset({str})),
    )
}
"""Every datatype of the protocol, by its name."""
