"""Materialise: copy the latest value of each entity from the offline to the online store.

A watermark for each view says until when the online store holds everything that was known. The
next run reads only what became known since, late writes included, and writes it in chunks of
entities, always in the same order. The store records how far a run has come: one that is killed is
gone on with by the next, and ends in the same state. A repeated run writes nothing.
"""

import contextlib
import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from featurestore.catalog.catalog import Catalog
from featurestore.columns import microseconds
from featurestore.errors import ViewReplaced
from featurestore.offline.tables import table_uris, utc
from featurestore.stores.latest import latest_known
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import OnlineStore, Progress, StoredView, stored_view
from headrace import storage
from headrace.plan import ViewRead
from headrace.settings import Settings
from headrace.window import as_microseconds

_LOG_SECONDS = 5.0
_TRIES = 5

Log = logging.Logger | logging.LoggerAdapter[Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewMaterialized:
    """What a run did for one view."""

    store: str
    """The online store, without its password."""
    view: str
    since: datetime | None
    """The watermark before the run; None: the view was written from the start."""
    until: datetime
    """The watermark after the run."""
    keys_written: int
    """Entities whose values changed; 0 if nothing was new."""
    rows_read: int
    """Rows of the offline table that became known between the two."""
    newest: datetime | None
    """The latest event time that the view has; None: it has no values."""


@dataclass(frozen=True)
class _Window:
    """What is to be written: the rows of a table that became known in ``(since, until]``."""

    root: str
    read: ViewRead
    since: datetime | None
    until: datetime


def materialize(
    settings: Settings,
    catalog: Catalog,
    *,
    until: datetime,
    rebuild: bool = False,
    log: Log = _log,
) -> tuple[ViewMaterialized, ...]:
    """Bring every view of the online store up to ``until``.

    Safe to run twice, at once with another run or a push, and to kill. A view whose features, keys
    or table have changed is written from the start. Otherwise an ``until`` before the watermark
    writes nothing: an older value never replaces a newer one.

    Args:
        settings: where the two stores are.
        catalog: the compiled feature definitions.
        until: values that were true and written by then count; timezone-aware.
        rebuild: forget what is there and write every view from the start.
        log: hears what is done, and how far a long write has come.

    Returns:
        What was done, one entry a view, in the catalog's order.

    Raises:
        OnlineStoreFailed: if the store is locked, damaged, away or cannot be written.
        ViewReplaced: if another run has begun to write a view from the start meanwhile.
        UnknownName, SchemaMismatch, StorageFailed: for an offline table, as ``read_table``.
        TimeWithoutZone: if ``until`` does not say its time zone.
    """
    until, root = utc(until), settings.uri("offline")
    with contextlib.closing(open_store(settings, catalog.project)) as store:
        return tuple(
            _materialize_view(store, root, read, until=until, rebuild=rebuild, log=log)
            for read in catalog.views
        )


def _materialize_view(
    store: OnlineStore, root: str, read: ViewRead, *, until: datetime, rebuild: bool, log: Log
) -> ViewMaterialized:
    begin, since = _begin(store, read, until, rebuild=rebuild)
    if since is not None and until <= since:
        log.info("%s: nothing to do, it reaches %s", read.view, since)
        return _done(store, begin, since, since)
    anew = begin.loading and begin.generation > 1
    with store.anew(begin) if anew else contextlib.nullcontext():
        end = _write(store, begin, _Window(root, read, since, until), log=log)
    log.info(
        "%s: %d rows read, %d keys written, until %s",
        read.view, end.rows_read, end.keys_written, until,
    )  # fmt: skip
    return _done(store, end, since, until)


def _done(
    store: OnlineStore, view: StoredView, since: datetime | None, until: datetime
) -> ViewMaterialized:
    return ViewMaterialized(
        store=store.place,
        view=view.view.view,
        since=since,
        until=until,
        keys_written=0 if since == until else view.keys_written,
        rows_read=0 if since == until else view.rows_read,
        newest=view.newest_event,
    )


def _begin(
    store: OnlineStore, read: ViewRead, until: datetime, *, rebuild: bool
) -> tuple[StoredView, datetime | None]:
    """The record to begin with, and the watermark to go on from; None: from the start.

    The store has the record already, unless it begins a new generation.
    """
    for _ in range(_TRIES):
        there = store.views().get(read.view)
        if there is None:
            begin = StoredView(view=stored_view(read), loading=True)
        elif there.view != stored_view(read) or _starts_over(there, until, rebuild=rebuild):
            return _next_generation(there, read), None
        elif there.until_us is None:
            begin = there.model_copy(update={"loading": True})
        else:
            return there, there.until
        if store.put_view(begin):
            return begin, None
    raise ViewReplaced(read.view, store.place)  # each time another run was faster


def _starts_over(there: StoredView, until: datetime, *, rebuild: bool) -> bool:
    if (
        there.loading
        and there.progress is not None
        and there.progress.until_us > as_microseconds(until)
    ):
        return True  # a killed run has left values that must not be known yet
    return rebuild and not (there.loading and there.generation > 1)  # else: a killed rebuild


def _next_generation(there: StoredView, read: ViewRead) -> StoredView:
    features = {feature.name for feature in there.view.features}.union(there.replaced)
    return StoredView(
        view=stored_view(read),
        generation=there.generation + 1,
        loading=True,
        replaced=tuple(sorted(features)),
    )


def _write(store: OnlineStore, begin: StoredView, window: _Window, *, log: Log) -> StoredView:
    """Write what became known in a window, from where a killed run stopped; move the watermark.

    Returns:
        The record at the end, which the store has, unless another run is ahead by now.
    """
    read, until_us = window.read, as_microseconds(window.until)
    run = _run_of(begin, window)
    progress = Progress(run=run, until_us=until_us, entities=0, keys_written=0)
    if begin.progress is not None and begin.progress.run == run:
        progress = begin.progress
        log.info("%s: goes on after %d entities", read.view, progress.entities)
    rows_read, newest, skip = 0, begin.newest_event_us, progress.entities
    told = time.monotonic()
    ends, ordered = (window.since, window.until), store.in_key_order
    for page in latest_known(window.root, read, *ends, in_key_order=ordered):
        rows_read += page.rows_read
        if len(page.rows):
            event = microseconds(page.rows, read.table, read.event_timestamp)
            newest = max(int(event.max()), int(event.max()) if newest is None else newest)
        rows = page.rows.slice(min(skip, len(page.rows)))
        skip -= len(page.rows) - len(rows)
        for start in range(0, len(rows), store.chunk_rows):
            progress = _write_chunk(store, begin, rows.slice(start, store.chunk_rows), progress)
            if time.monotonic() - told > _LOG_SECONDS:
                told = time.monotonic()
                log.info("%s: %d entities done", read.view, progress.entities)
    if begin.loading and begin.generation > 1:
        store.sweep(begin)
    end = begin.model_copy(
        update={
            "until_us": until_us,
            "loading": False,
            "replaced": (),
            "newest_event_us": newest,
            "rows_read": rows_read,
            "keys_written": progress.keys_written,
            "progress": None,
        }
    )
    if not store.put_view(end):
        log.info("%s: another run is ahead of %s", read.view, window.until)
    return end


def _write_chunk(
    store: OnlineStore, begin: StoredView, rows: pa.Table, progress: Progress
) -> Progress:
    """Write some entities; the progress after them, which the store has too."""

    def after(changed: int) -> Progress:
        return progress.model_copy(
            update={
                "entities": progress.entities + len(rows),
                "keys_written": progress.keys_written + changed,
            }
        )

    def then(changed: int) -> StoredView:
        return begin.model_copy(update={"progress": after(changed)})

    return after(store.write(begin, rows, then=then))


def _run_of(begin: StoredView, window: _Window) -> str:
    """What decides which entities a run writes, and in which order, as a hash."""
    uris = table_uris(window.root, window.read.table)
    files = [f"{uri} {storage.stamp(uri)}" for uri in uris]
    parts = [begin.tag.hex(), str(window.since), str(window.until), *files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
