"""Types that msgspec decodes rows into, so that a usual row is checked while it is read.

A type takes only what certainly fits; whatever it refuses goes to the full check, which says why.
Checks of the decoder cost nothing that can be measured: types, bounds, unknown and missing fields
are compared in C, at a third of the time that decoding into a dictionary takes.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from serving.fields import FLOAT32, Field

Number = Annotated[float, msgspec.Meta(ge=-FLOAT32, le=FLOAT32)]
"""A number that a 32-bit float can hold."""


def keyed_row_type(fields: Sequence[Field]) -> type[msgspec.Struct]:
    """The rows that fit ``fields`` and hold no null; moments are still text, to be parsed."""
    return _struct("KeyedRow", [(field.name, _type_of(field)) for field in fields])


def raw_row_type(columns: Sequence[str]) -> type[msgspec.Struct]:
    """Objects of raw features: every column by name, null where it is missing."""
    return _struct("RawRow", [(column, Number | None) for column in columns])


def _struct(name: str, named: Sequence[tuple[str, Any]]) -> type[msgspec.Struct]:
    # A field may be called anything in JSON, so it gets a name of ours in Python.
    own = [f"f{place}" for place in range(len(named))]
    return msgspec.defstruct(
        name,
        list(zip(own, [kind for _, kind in named], strict=True)),
        rename=dict(zip(own, [given for given, _ in named], strict=True)),
        forbid_unknown_fields=True,
        gc=False,
    )


def _type_of(field: Field) -> Any:
    if field.one_of is not None:
        return Literal[field.one_of]
    if (bounds := field.range) is None:
        return str
    if field.kind == "float64":
        return Annotated[float, msgspec.Meta(ge=bounds[0], le=bounds[1])]
    return Annotated[int, msgspec.Meta(ge=math.ceil(bounds[0]), le=math.floor(bounds[1]))]
