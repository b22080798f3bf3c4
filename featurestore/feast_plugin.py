"""Feast's offline store on Headrace's point-in-time join, named in ``feature_store.yaml``.

Only Feast imports this module. With it ``FeatureStore.get_historical_features`` gives the values
that Headrace trains on: no row lost, none from the future.
"""

from datetime import datetime
from typing import Any

import pandas as pd  # noqa: TID253 - Feast has imported it already
import pyarrow as pa
from feast.infra.offline_stores.offline_store import (  # noqa: TID253 - only Feast imports us
    OfflineStore,
    RetrievalJob,
)
from feast.repo_config import FeastConfigBaseModel  # noqa: TID253

from featurestore.columns import TIMESTAMP
from featurestore.errors import MATERIALIZE, DefinitionsRefused
from featurestore.feast_objects import view_read
from featurestore.offline import read_table
from featurestore.pit import point_in_time_join
from headrace.plan import ViewRead

EVENT_TIMESTAMP = "event_timestamp"
"""The column of ``entity_df`` with the moment of each row."""


class HeadraceOfflineStoreConfig(FeastConfigBaseModel):
    """The section ``offline_store`` of ``feature_store.yaml``."""

    type: str = "featurestore.feast_plugin.HeadraceOfflineStore"


class JoinedRows(RetrievalJob):
    """The joined rows, already there."""

    def __init__(self, table: pa.Table, full_feature_names: bool) -> None:
        self._table, self._full_feature_names = table, full_feature_names

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002
        return self._table.to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are ``<view>__<feature>`` or ``<feature>``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: Headrace's transforms take their place."""
        return []


class HeadraceOfflineStore(OfflineStore):
    """Historical features by Headrace's join."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: Any,  # noqa: ARG004
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Return a row for each row of ``entity_df``, in its order, with the features asked for."""
        if not isinstance(entity_df, pd.DataFrame):
            raise DefinitionsRefused("entity_df", "it must be a pandas DataFrame")
        rows = _with_utc(pa.Table.from_pandas(entity_df, preserve_index=False))
        entities = {entity.name: entity for entity in registry.list_entities(project)}
        joined = rows
        for view in feature_views:
            read, root = view_read(view, entities), view.batch_source.path.rsplit("/", 1)[0]
            read = _only(read, feature_refs)
            values = read_table(root, read.table)
            found = point_in_time_join(rows, values, read, timestamp=EVENT_TIMESTAMP)
            for column, feature in zip(read.columns, read.features, strict=True):
                name = column if full_feature_names else feature.name
                joined = joined.append_column(name, pa.array(found.columns[column]))
        return JoinedRows(joined, full_feature_names)

    @staticmethod
    def pull_latest_from_table_or_query(*_: Any, **__: Any) -> RetrievalJob:
        """Refused: it knows no created timestamps beyond the order of equal event times."""
        raise DefinitionsRefused("pull_latest_from_table_or_query", f"run {MATERIALIZE}")

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0917 - Feast's signature
        config: Any,  # noqa: ARG004
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return all rows of a table with ``start_date <= event < end_date``."""
        root, name = data_source.path.rsplit("/", 1)
        times = [timestamp_field] + ([created_timestamp_column] if created_timestamp_column else [])
        table = read_table(
            root,
            name.removesuffix(".parquet"),
            columns=[*join_key_columns, *feature_name_columns, *times],
            timestamp=timestamp_field,
            since=start_date,
            until=end_date,
            empty_ok=True,
        )
        return JoinedRows(table, full_feature_names=False)


def _only(read: ViewRead, feature_refs: list[str]) -> ViewRead:
    wanted = tuple(f for f in read.features if f"{read.view}:{f.name}" in feature_refs)
    return read.model_copy(update={"features": wanted})


def _with_utc(rows: pa.Table) -> pa.Table:
    position = rows.schema.get_field_index(EVENT_TIMESTAMP)
    if position < 0 or not getattr(rows.schema.field(position).type, "tz", None):
        raise DefinitionsRefused(
            "entity_df", f"it must have a column {EVENT_TIMESTAMP} with a time zone"
        )
    return rows.set_column(position, EVENT_TIMESTAMP, rows[EVENT_TIMESTAMP].cast(TIMESTAMP))
