"""What the online store says about itself: each view's definition and how far it reaches.

Every store keeps one small record a view beside the rows, so that a reader knows what the rows
mean without asking Feast's registry, and a materialisation knows where to go on.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from featurestore.errors import OnlineStoreFailed
from featurestore.stores.packed import tag_of
from headrace.plan import ViewRead
from headrace.window import from_microseconds

if TYPE_CHECKING:
    import pyarrow as pa  # the server reads records without it


class Progress(BaseModel):
    """How far a materialisation has come that has not ended: what a resumed one can skip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    """Hash of what the run materialises: window, definition, source files. Another run starts over.
    """
    until_us: int
    """The watermark that the run will set."""
    entities: int
    """So many entities are done, in an order that the run decides."""
    keys_written: int
    """So many of them changed."""


class StoredView(BaseModel):
    """The record of one view in an online store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: ViewRead
    """As it was when the rows were written; its TTL is not part of it."""
    generation: int = 1
    """Counts how often the view has been written from the start."""
    until_us: int | None = None
    """The watermark, microseconds since 1970 in UTC: everything known by then is there. None: the
    view has only been pushed to, or ``loading``."""
    loading: bool = False
    """True while the view is being written from the start: entities may still be missing."""
    replaced: tuple[str, ...] = ()
    """While ``loading``: features of earlier generations, which old rows may still have."""
    newest_event_us: int | None = None
    """The latest event time among all rows materialised in this generation."""
    rows_read: int = 0
    """Rows of the offline table that the last materialisation found new."""
    keys_written: int = 0
    """Entities whose values the last materialisation changed."""
    progress: Progress | None = None
    """Of a materialisation that has not ended, or was killed."""

    @property
    def until(self) -> datetime | None:
        """``until_us`` as a moment."""
        return None if self.until_us is None else from_microseconds(self.until_us)

    @property
    def newest_event(self) -> datetime | None:
        """``newest_event_us`` as a moment."""
        return None if self.newest_event_us is None else from_microseconds(self.newest_event_us)

    @property
    def tag(self) -> bytes:
        """What marks the packed rows that belong to this record."""
        return tag_of(self.view.model_dump_json(), self.generation)


def stored_view(read: ViewRead) -> ViewRead:
    """What of a view's definition its stored rows depend on; a change asks for a rebuild.

    The TTL, and what is done beyond it, are no part of it: they are applied when values are read.
    """
    return read.model_copy(update={"ttl_seconds": None, "last_known": False})


def read_record(view: str, record: str | bytes, place: str) -> StoredView:
    """A view's record as a store has it.

    Raises:
        OnlineStoreFailed: if it is no record of this version of Headrace.
    """
    try:
        return StoredView.model_validate_json(record)
    except ValidationError as error:
        reason = f"its record of view {view} is not one: {error.errors()[0]['msg']}"
        raise OnlineStoreFailed("read", place, reason) from error


class OnlineStore(Protocol):
    """Where the latest value of each entity lies. Safe to write from several processes at once.

    One rule orders all writes, materialised or pushed: a row replaces what is there unless that has
    a later event time, or the same and a later created time. A row is written as a whole.

    All methods raise ``OnlineStoreFailed``, naming the place, where the store cannot be used.
    """

    place: str
    """What reports and errors call the store: a path, or a URL without its password."""

    chunk_rows: int
    """How many rows a long write should hand over at a time."""
    in_key_order: bool
    """Whether the rows of a long write should come in the order of their entity keys."""

    def views(self) -> dict[str, StoredView]:
        """The record of every view there, by name."""

    def put_view(self, stored: StoredView) -> bool:
        """Write a view's record, unless what is there is ahead of it; whether it was written.

        Ahead is: a later generation, the same generation of another definition, or a later
        watermark of the same one.
        """

    def write(
        self,
        stored: StoredView,
        rows: "pa.Table",
        *,
        then: Callable[[int], StoredView] | None = None,
    ) -> int:
        """Write rows of a view; how many entities they changed (not older than what was there).

        Args:
            stored: the view's record; must be there already.
            rows: one an entity: join keys (none null), event and created timestamps and all
                features of the view.
            then: makes the record to put once the rows are there, from what is returned; in one
                transaction with them where the store has transactions. Rows that were written
                without it can be written again and do no harm.

        Raises:
            ViewReplaced: if the store has another generation of the view by now.
            SchemaMismatch: if a column is missing, a key or time is null, or a value does not fit.
        """

    def anew(self, stored: StoredView) -> AbstractContextManager[None]:
        """Write a view from the start: what is not written inside is gone after ``sweep``.

        In SQLite readers see the old rows until the end, and then all the new ones. In Redis rows
        are replaced one by one; those of earlier generations, which their tag tells, stay until
        ``sweep``. A killed one is gone on with by calling it with the same record.

        Args:
            stored: the record to begin with, ``loading`` and of a new generation.

        Raises:
            ViewReplaced: as ``write``.
        """

    def sweep(self, stored: StoredView) -> None:
        """At the end of ``anew``: remove the rows of earlier generations."""

    def close(self) -> None:
        """Let go of the store."""
