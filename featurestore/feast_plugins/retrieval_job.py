"""What Feast calls a retrieval job: a table that is there already, with Feast's ways to take it.

Feast computes its on-demand views on top of it, and can keep it as a saved dataset.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd  # noqa: TID253 - Feast has imported it already
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists  # noqa: TID253 - only Feast imports us
from feast.infra.offline_stores.offline_store import (  # noqa: TID253
    RetrievalJob,
    RetrievalMetadata,
)

from featurestore.columns import TIMESTAMP
from featurestore.errors import DefinitionsRefused
from featurestore.offline.tables import SUFFIX
from headrace import storage


class Joined(RetrievalJob):
    """A table that is there already."""

    def __init__(
        self,
        table: pa.Table,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[Any] = (),
        about: RetrievalMetadata | None = None,
    ) -> None:
        self._table, self._full_feature_names = table, full_feature_names
        self._on_demand, self._about = list(on_demand), about

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002
        return self._table.to_pandas()

    def persist(
        self,
        storage: Any,  # noqa: A002, RUF100 - Feast's name
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002
    ) -> None:
        """Write the table to the one Parquet file that a ``SavedDatasetFileStorage`` names.

        Raises:
            DefinitionsRefused: if it names another kind of place.
            SavedDatasetLocationAlreadyExists: if something is there and may not be replaced.
        """
        keep(self.to_arrow(), storage, allow_overwrite=allow_overwrite)

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are ``<view>__<feature>`` or ``<feature>``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """Feast's on-demand views, which Feast computes from the table."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._about


def keep(table: pa.Table, place: Any, *, allow_overwrite: bool) -> None:
    """Write a saved dataset where its ``SavedDatasetFileStorage`` says: see ``Joined.persist``."""
    uri = getattr(getattr(place, "file_options", None), "uri", "")
    if not uri.endswith(SUFFIX):
        raise DefinitionsRefused(
            "saved dataset", f"it must be SavedDatasetFileStorage(path='<folder>/<name>{SUFFIX}')"
        )
    if storage.exists(uri) and not allow_overwrite:
        raise SavedDatasetLocationAlreadyExists(location=uri)
    for position, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):  # as the tables of the offline store have them
            table = table.set_column(position, field.name, table[field.name].cast(TIMESTAMP))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    storage.write_atomic(uri, sink.getvalue().to_pybytes())
