"""What the online store says about itself: each view's definition and how far it reaches.

Every store keeps one small record a view beside the rows, so that a reader knows what the rows
mean without asking Feast's registry, and a materialisation knows where to go on.
"""

from typing import Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from featurestore.packed import tag_of
from headrace.plan import ViewRead


class StoredView(BaseModel):
    """The record of one view in an online store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: ViewRead
    """As it was when the rows were written; its TTL is not part of it."""
    generation: int = 1
    """Counts how often the view has been written from the start."""
    until_us: int | None = None
    """The watermark, microseconds since 1970 in UTC: everything known by then is there. None: the
    view has only been pushed to."""
    loading: bool = False
    """True while the first materialisation has not ended: entities may still be missing."""

    @property
    def tag(self) -> bytes:
        """What marks the packed rows that belong to this record."""
        return tag_of(self.view.model_dump_json(), self.generation)


def stored_view(read: ViewRead) -> ViewRead:
    """What of a view's definition its stored rows depend on; a change asks for a rebuild.

    The TTL is not part of it: it is applied when values are read.
    """
    return read.model_copy(update={"ttl_seconds": None})


class OnlineStore(Protocol):
    """Where the latest value of each entity lies. Safe to write from several processes at once.

    One rule orders all writes, materialised or pushed: a row replaces what is there unless that has
    a later event time, or the same and a later created time. A row is written as a whole.
    """

    def views(self) -> dict[str, StoredView]:
        """The record of every view there, by name."""

    def write(self, stored: StoredView, rows: pa.Table) -> int:
        """Write rows of a view, one an entity; how many were not older than what was there.

        Args:
            stored: the view's record; must be there already.
            rows: join keys (none null), event and created timestamps and all features of the view.
        """

    def close(self) -> None:
        """Let go of the store."""
