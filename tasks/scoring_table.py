"""A window of a model's scoring table in memory, for what looks at a month, not at everything."""

import pyarrow as pa

from featurestore.offline.tables import read_table
from headrace.settings import Settings
from headrace.spec import load_spec
from headrace.window import Window


def scoring_rows(settings: Settings, model: str, window: Window) -> pa.Table:
    """The rows of a window with what a request has: moments, entity keys and request fields.

    Raises:
        UnknownName, SchemaMismatch, DatesOutsideData, StorageFailed: as ``read_table``.
    """
    spec = load_spec(model)
    label = spec.label
    request = [field.name for field in spec.request]
    columns = dict.fromkeys([label.event_timestamp, *label.entity_keys, *request])
    return read_table(
        settings.uri("offline"),
        spec.scoring_table,
        columns=list(columns),
        timestamp=label.event_timestamp,
        since=window.since,
        until=window.until,
    )
