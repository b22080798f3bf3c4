"""``Part``: a frozen piece of a spec, plan or bundle."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen piece of a spec, plan or bundle; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with other values for some fields."""
        copied = super().model_copy(update=update, deep=deep)
        # What was worked out of the original's fields (cached_property) is not true of the copy.
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied
