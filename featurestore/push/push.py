"""Push: rows of a view that are newer than the last materialisation, into both stores.

Offline first, then online, so that a training set can always see what was served. Offline all rows
are kept, as a part of the view's table (``offline.parts``). Online an entity has one row, and one
rule orders all writes: a row replaces what is there unless that has a later event time, or the
same and a later created time. So a late event never overwrites a newer one, and pushing the same
rows twice changes nothing in either store.
"""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from featurestore.catalog.catalog import Catalog
from featurestore.errors import FeatureNotMaterialized, ViewReplaced
from featurestore.join.pit import latest_values
from featurestore.offline.parts import add_part
from featurestore.offline.tables import table_names, table_schema
from featurestore.push.incoming import checked_rows, view_schema
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import OnlineStore, StoredView, stored_view
from headrace.errors import UnknownName
from headrace.plan import ViewRead
from headrace.settings import Settings

Target = Literal["online", "offline", "both"]
_TRIES = 3  # a materialisation from the start may take the view's place in between


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    view: str
    rows: int
    """Rows that were pushed."""
    rows_added: int
    """Of these, rows that the offline store did not have; 0 where nothing was to go there."""
    entities: int
    """Entities of the rows; 0 where nothing was to go online."""
    entities_written: int
    """Of these, how many had nothing newer online."""


def push(
    settings: Settings,
    catalog: Catalog,
    view: str,
    rows: pa.Table,
    *,
    to: Target = "online",
    now: datetime | None = None,
) -> Pushed:
    """Write rows of a feature view. Safe to run twice, to kill and run again, and beside others.

    Args:
        settings: where the two stores are.
        catalog: the compiled feature definitions.
        view: the feature view; it need not have been materialised before.
        rows: the columns of the view's table in any order: join keys, timestamps, features. What
            goes online only may leave out columns that are not the view's.
        to: which store. ``offline`` alone is seen by training, and online by nobody until the next
            materialisation.
        now: what time it is; this machine's clock if None.

    Raises:
        UnknownName: if the catalog has no such view.
        SchemaMismatch: naming a column that is missing, unknown, or of the wrong type.
        RowsRefused: naming rows with a null key or time, a value that does not fit, or a time in
            the future. Nothing is written.
        FeatureNotMaterialized: if the online store has the view as it was defined before.
        StorageFailed, OnlineStoreFailed: if a store cannot be written.
    """
    read = view_of(catalog, view)
    schema = pushed_schema(settings, read)
    if to == "online":  # other columns of the table, as of another view, are nothing to it
        wanted = {*read.key_names, *read.timestamps, *(feature.name for feature in read.features)}
        schema = pa.schema([c for c in schema if c.name in wanted.union(rows.column_names)])
    rows = checked_rows(read, rows, schema, now=now)
    added = write_offline(settings, read, rows) if to != "online" and rows.num_rows else 0
    entities, written = 0, 0
    if to != "offline" and rows.num_rows:
        store = open_store(settings, catalog.project)
        try:
            entities, written = write_online(store, read, rows)
        finally:
            store.close()
    return Pushed(view, rows.num_rows, added, entities, written)


def view_of(catalog: Catalog, name: str) -> ViewRead:
    """The view of this name.

    Raises:
        UnknownName: if the catalog has none.
    """
    views = {view.view: view for view in catalog.views}
    if name not in views:
        raise UnknownName("feature view", name, views)
    return views[name]


def pushed_schema(settings: Settings, view: ViewRead) -> pa.Schema:
    """The columns of rows that can be pushed to a view: those of its table, where it is there."""
    root = settings.uri("offline")
    if view.table in table_names(root):
        return table_schema(root, view.table)
    return view_schema(view)


def write_offline(settings: Settings, view: ViewRead, rows: pa.Table) -> int:
    """Add checked rows to the view's table; how many: 0 if they were pushed before."""
    root = settings.uri("offline")
    part = add_part(root, view.table, rows, timestamp=view.event_timestamp)
    return 0 if part.was_there else part.rows


def write_online(store: OnlineStore, view: ViewRead, rows: pa.Table) -> tuple[int, int]:
    """Write the latest of checked rows of each entity; how many entities, and how many changed.

    Raises:
        FeatureNotMaterialized: if the store has the view as it was defined before.
        ViewReplaced: if the view is written from the start again and again.
    """
    latest = rows.take(pa.array(latest_values(rows, view)))
    for _ in range(_TRIES - 1):
        with contextlib.suppress(ViewReplaced):
            return latest.num_rows, store.write(_record(store, view), latest)
    return latest.num_rows, store.write(_record(store, view), latest)


def _record(store: OnlineStore, view: ViewRead) -> StoredView:
    """The store's record of the view, made where it has never been written."""
    wanted = stored_view(view)
    if view.view not in store.views():
        store.put_view(StoredView(view=wanted))  # refused if another writer was first
    stored = store.views()[view.view]
    if stored.view != wanted:
        what = f"feature view {view.view} as it is defined now"
        raise FeatureNotMaterialized(what, store.place)
    return stored
