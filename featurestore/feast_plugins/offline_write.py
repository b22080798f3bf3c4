"""What Feast pushes offline: rows of a view, into the part files of its table.

Feast's objects come in, ours go out; ``featurestore.feast_plugins.offline_store`` is the door to
Feast.
"""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.feast_plugins.objects import file_source, view_read
from featurestore.offline.parts import add_part
from featurestore.offline.tables import SUFFIX, table_names, table_schema
from featurestore.push.incoming import checked_rows, view_schema
from headrace.plan import ViewRead


def read_of(view: Any) -> ViewRead:
    """A feature view of Feast's registry as the read that Headrace makes of it."""
    keys = [
        SimpleNamespace(join_key=column.name, value_type=column.dtype.to_value_type())
        for column in view.entity_columns
    ]
    return view_read(view, dict(zip(view.entities, keys, strict=True)))


def push_rows(view: Any, rows: pa.Table) -> None:
    """Add rows to the table of a feature view.

    Raises:
        SchemaMismatch: naming a column that is missing, unknown, or of the wrong type.
        RowsRefused: naming rows that cannot be used; nothing is written.
        StorageFailed: if the part cannot be written.
    """
    if not rows.num_rows:
        return
    read, root = read_of(view), file_source(view).path.rsplit("/", 1)[0]
    there = read.table in table_names(root)
    schema = table_schema(root, read.table) if there else view_schema(read)
    add_part(
        root,
        read.table,
        checked_rows(read, _in_utc(read, rows), schema),
        timestamp=read.event_timestamp,
    )


def column_types(source: Any) -> list[tuple[str, str]]:
    """The columns of a ``FileSource``'s table and their Arrow types.

    Raises:
        UnknownName: if there is no such table: push its first rows with ``featurestore.push.push``.
    """
    root, name = source.path.rsplit("/", 1)
    schema = table_schema(root, name.removesuffix(SUFFIX))
    return [(column.name, str(column.type)) for column in schema]


def _in_utc(read: ViewRead, rows: pa.Table) -> pa.Table:
    # By Feast's convention a time without a zone is in UTC.
    for name in read.timestamps:
        position = rows.schema.get_field_index(name)
        kind = rows.schema.field(position).type if position >= 0 else None
        if kind is not None and pa.types.is_timestamp(kind) and kind.tz is None:
            in_utc = pc.assume_timezone(rows[name], "UTC")
            rows = rows.set_column(position, name, in_utc)
    return rows
