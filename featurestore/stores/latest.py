"""The latest row of each entity that became known in a window, a page of entities at a time.

A page holds the entities with the smallest keys that are greater than those of the page before. So
memory is bounded however many entities there are, and their order is the same in every run: what a
resumed materialisation counts on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP
from featurestore.join.pit import latest_values
from featurestore.offline.tables import scan_table
from featurestore.stores.encode import entity_keys
from headrace.plan import ViewRead

PAGE_ENTITIES = 2_000_000
"""The most entities held in memory; a table with more is read again for each page."""


@dataclass(frozen=True)
class Page:
    """The latest rows of some entities."""

    rows: pa.Table
    """One an entity."""
    rows_read: int
    """Rows of the table that became known in the window, whatever their entity; 0 but for the
    first page."""


def latest_known(
    root: str,
    read: ViewRead,
    since: datetime | None,
    until: datetime,
    *,
    in_key_order: bool = True,
) -> Iterator[Page]:
    """Yield the latest row of each entity that became known in ``(since, until]``.

    Latest by event time, then created time, then position, as in the point-in-time join.

    Args:
        root: where the offline tables are.
        read: the feature view.
        since: the moment before the window; None: from the start.
        until: the last moment of the window.
        in_key_order: whether a page is in the order of Feast's entity keys; else in the table's.

    Raises:
        UnknownName, SchemaMismatch, StorageFailed: for the table, as ``read_table``.
    """
    window = _known(read, since, until)
    columns = [*read.key_names, *read.timestamps, *(f.name for f in read.features)]
    where, first = window, True
    while True:
        latest: pa.Table | None = None
        rows_read, full = 0, False
        for part in scan_table(root, read.table, columns=list(dict.fromkeys(columns)), where=where):
            rows_read += part.num_rows
            both = part if latest is None else pa.concat_tables([latest, part])
            latest = both.take(pa.array(latest_values(both, read)))
            if latest.num_rows > PAGE_ENTITIES:
                latest, full = _smallest(latest, read.key_names), True
        if latest is not None:
            rows = latest
            if in_key_order:
                rows = latest.take(pc.array_sort_indices(entity_keys(latest, read)))
            yield Page(rows, rows_read if first else 0)
        if not full or latest is None:
            return
        where, first = window & _after(latest, read.key_names), False


def _known(read: ViewRead, since: datetime | None, until: datetime) -> pc.Expression:
    event, known = pc.field(read.event_timestamp), pc.field(read.known_timestamp)
    end = pa.scalar(until, TIMESTAMP)
    where = (event <= end) & (known <= end)
    if since is not None:
        start = pa.scalar(since, TIMESTAMP)
        where &= (event > start) | (known > start)
    return where


def _smallest(latest: pa.Table, keys: Sequence[str]) -> pa.Table:
    order = pc.sort_indices(latest.select(keys), sort_keys=[(key, "ascending") for key in keys])
    kept = np.sort(np.asarray(order.slice(0, PAGE_ENTITIES)))  # ties go by position: keep the order
    return latest.take(pa.array(kept))


def _after(latest: pa.Table, keys: Sequence[str]) -> Any:
    """The entities whose keys are greater than the greatest one here, key by key."""
    order = pc.sort_indices(latest.select(keys), sort_keys=[(key, "descending") for key in keys])
    last = [latest[key][order[0].as_py()] for key in keys]
    after, same = None, None
    for key, value in zip(keys, last, strict=True):
        greater = pc.field(key) > value
        greater = greater if same is None else same & greater
        after = greater if after is None else after | greater
        equal = pc.field(key) == value
        same = equal if same is None else same & equal
    return after
