"""Rows of a scoring table that lie in no window, because they have no moment."""

from typing import Any

from featurestore.offline.tables import table_uris
from headrace import storage
from headrace.settings import Settings
from headrace.spec import load_spec
from tasks.batch.inputs.parquet import read_footer


def unplaced_rows(settings: Settings, model: str) -> int:
    """How many rows of a model's scoring table have a null moment, in all of the table.

    No window holds them, so no run scores or rejects them; they must be told of all the same. From
    the statistics in the footers, which every table that Headrace writes has.

    Raises:
        UnknownName, InputBroken, StorageFailed: if the table cannot be looked at.
    """
    spec = load_spec(model)
    uris = table_uris(settings.uri("offline"), spec.scoring_table)
    footers = [read_footer(uri, storage.find(uri).bytes) for uri in uris]
    moment = spec.label.event_timestamp
    return sum(
        _nulls(footer.metadata.row_group(group), moment)
        for footer in footers
        for group in range(footer.metadata.num_row_groups)
    )


def _nulls(row_group: Any, column: str) -> int:
    chunks = [row_group.column(index) for index in range(row_group.num_columns)]
    statistics = [chunk.statistics for chunk in chunks if chunk.path_in_schema == column]
    return sum(int(one.null_count) for one in statistics if one and one.has_null_count)
