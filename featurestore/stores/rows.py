"""The rows of a view as an online store keeps them: Feast's messages and the packed copy.

Made once for a batch of rows, with whole columns; both stores write the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.columns import feature_column, floats, microseconds
from featurestore.stores.encode import entity_keys, messages
from featurestore.stores.packed import pack_rows
from featurestore.stores.stored import StoredView
from headrace.plan import NUMBERS


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view, one an entity, ready to be written."""

    keys: pa.LargeBinaryArray
    """Feast's entity keys."""
    event_us: np.ndarray
    """int64, shape (rows,), microseconds since 1970 in UTC."""
    created_us: np.ndarray
    """The same; the event time where the view has no created column."""
    messages: Sequence[pa.LargeBinaryArray]
    """A column of ``Value`` messages for each feature, in the definition's order."""
    packed: np.ndarray
    """uint8, shape (rows, row_bytes): as in ``featurestore.stores.packed``."""

    def take(self, places: np.ndarray) -> "EncodedRows":
        """The rows at some places, in that order."""
        indices = pa.array(places)
        return EncodedRows(
            keys=self.keys.take(indices),
            event_us=self.event_us[places],
            created_us=self.created_us[places],
            messages=[column.take(indices) for column in self.messages],
            packed=self.packed[places],
        )


def encode_rows(stored: StoredView, rows: pa.Table) -> EncodedRows:
    """Encode rows of a view.

    Raises:
        SchemaMismatch: if a column is missing, a key or time is null, or a value does not fit.
    """
    view = stored.view
    event = microseconds(rows, view.table, view.event_timestamp)
    created = microseconds(rows, view.table, view.known_timestamp)
    numbers = [feature for feature in view.features if feature.dtype in NUMBERS]
    columns = [floats(feature_column(rows, view.table, feature)) for feature in numbers]
    return EncodedRows(
        keys=entity_keys(rows, view),
        event_us=event,
        created_us=created,
        messages=[messages(rows, view.table, feature) for feature in view.features],
        packed=pack_rows(stored.tag, event, created, columns),
    )
