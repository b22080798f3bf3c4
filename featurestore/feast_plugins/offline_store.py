"""Feast's offline store on Headrace's point-in-time join, named in ``feature_store.yaml``.

Only Feast imports this module. With it ``FeatureStore.get_historical_features`` gives the values
that Headrace trains on: no row lost, none from the future. Feast's own ``materialize`` works too.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd  # noqa: TID253 - Feast has imported it already
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL  # noqa: TID253 - only Feast
from feast.infra.offline_stores.offline_store import (  # noqa: TID253 - imports us
    OfflineStore,
    RetrievalJob,
    RetrievalMetadata,
)
from feast.on_demand_feature_view import OnDemandFeatureView  # noqa: TID253
from feast.repo_config import FeastConfigBaseModel  # noqa: TID253

from featurestore.columns import TIMESTAMP, microseconds
from featurestore.errors import DefinitionsRefused
from featurestore.feast_plugins.objects import view_read
from featurestore.feast_plugins.offline_write import column_types, push_rows
from featurestore.feast_plugins.retrieval_job import Joined
from featurestore.join.certificate import span_of
from featurestore.join.joining import in_threads
from featurestore.join.keys import RowKeys
from featurestore.join.pit import latest_values
from featurestore.join.reach import open_view
from featurestore.offline.tables import SUFFIX, read_table
from headrace.plan import JoinKey, ViewRead

EVENT_TIMESTAMP = "event_timestamp"
"""The column of ``entity_df`` with the moment of each row."""


class HeadraceOfflineStoreConfig(FeastConfigBaseModel):
    """The section ``offline_store`` of ``feature_store.yaml``."""

    type: str = "featurestore.feast_plugins.offline_store.HeadraceOfflineStore"


class HeadraceOfflineStore(OfflineStore):
    """Historical features by Headrace's join, from tables of Headrace's offline store."""

    supports_filter_by_created_timestamp = True  # it does so whether asked to or not

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
        """Return a row for each row of ``entity_df``, in its order, with the features asked for.

        ``entity_df`` is a pandas DataFrame with the join keys and ``event_timestamp``, which has a
        time zone; its index is not looked at, its other columns are kept.

        Raises:
            DefinitionsRefused: if ``entity_df`` is something else, or a view cannot be read.
            SchemaMismatch: if a join key has another type than its entity, or a time is null.
        """
        rows = _rows(entity_df)
        entities = {entity.name: entity for entity in registry.list_entities(project)}
        asked = [_Asked.of(view, entities, feature_refs) for view in feature_views]
        joined = rows
        moments = _with_utc(rows)
        for view, columns in zip(asked, in_threads(lambda a: a.join(moments), asked), strict=True):
            for feature, column in zip(view.read.features, columns, strict=True):
                name = f"{view.read.view}__{feature.name}" if full_feature_names else feature.name
                if name in joined.column_names:
                    raise DefinitionsRefused(
                        "entity_df", f"its column {name} is also a feature; rename or drop it"
                    )
                joined = joined.append_column(name, column)
        keys = [column for column in rows.column_names if column != EVENT_TIMESTAMP]
        first, last = span_of(moments[EVENT_TIMESTAMP]) or (None, None)
        return Joined(
            joined,
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            about=RetrievalMetadata(feature_refs, keys, first, last),
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0917 - Feast's signature
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return the latest row of each entity with ``start_date <= event < end_date``.

        The latest by event time, then created time, then position, as in the join.
        """
        job = HeadraceOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        rows = job.to_arrow()
        keys = tuple(_key_as_stored(rows, name) for name in join_key_columns or [DUMMY_ENTITY_ID])
        read = ViewRead(
            view=data_source.name,
            table=data_source.name,
            join_keys=keys,
            event_timestamp=timestamp_field,
            created_timestamp=created_timestamp_column or None,
            ttl_seconds=None,
            features=(),
        )
        return Joined(rows.take(pa.array(latest_values(rows, read))))

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
            name.removesuffix(SUFFIX),
            columns=list(dict.fromkeys([*join_key_columns, *feature_name_columns, *times])),
            timestamp=timestamp_field,
            since=start_date,
            until=end_date,
            empty_ok=True,
        )
        if not join_key_columns:  # Feast's way to say that all values belong to one entity
            one = pa.array([DUMMY_ENTITY_VAL] * table.num_rows, pa.string())
            table = table.append_column(DUMMY_ENTITY_ID, one)
        return Joined(table)

    @staticmethod
    def offline_write_batch(
        config: Any,  # noqa: ARG004
        feature_view: Any,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows that Feast pushes to the view's table."""
        push_rows(feature_view, table)
        if progress:
            progress(table.num_rows)

    def get_table_column_names_and_types_from_data_source(
        self,
        config: Any,  # noqa: ARG002
        data_source: Any,
    ) -> list[tuple[str, str]]:
        """The columns that rows pushed offline must have: those of the table, pushed or not."""
        return column_types(data_source)


class _Asked:
    """One view as it was asked for: under a name, with some features, keyed by some columns."""

    def __init__(self, root: str, read: ViewRead, key_columns: Sequence[str]) -> None:
        self.root, self.read, self._key_columns = root, read, key_columns

    @classmethod
    def of(cls, view: Any, entities: dict[str, Any], feature_refs: list[str]) -> "_Asked":
        name, renamed = view.projection.name_to_use(), view.projection.join_key_map
        read = view_read(view, entities)
        wanted = tuple(f for f in read.features if f"{name}:{f.name}" in feature_refs)
        read = read.model_copy(update={"view": name, "features": wanted})
        root = view.batch_source.path.rsplit("/", 1)[0]
        return cls(root, read, [renamed.get(key, key) for key in read.key_names])

    def join(self, rows: pa.Table) -> list[pa.Array]:
        """The feature columns for rows with ``EVENT_TIMESTAMP`` in UTC."""
        missing = sorted(set(self._key_columns) - set(rows.column_names))
        if missing:
            raise DefinitionsRefused(
                "entity_df", f"view {self.read.view} needs its columns {', '.join(missing)}"
            )
        keys = rows.select(self._key_columns).rename_columns(list(self.read.key_names))
        span = span_of(rows[EVENT_TIMESTAMP])
        view = open_view(self.root, self.read, span, as_arrow=True, fingerprint=False)
        at = microseconds(rows, "entity_df", EVENT_TIMESTAMP)
        joined = view.join(RowKeys(keys, "entity_df"), at, exact_reasons=False)
        return list(joined.columns.values())


def _rows(entity_df: pd.DataFrame | str | None) -> pa.Table:
    if not isinstance(entity_df, pd.DataFrame):
        raise DefinitionsRefused(
            "entity_df",
            f"it must be a pandas DataFrame of join keys and {EVENT_TIMESTAMP}, not "
            f"{type(entity_df).__name__}; for SQL, pass the query's result",
        )
    try:
        return pa.Table.from_pandas(entity_df, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:  # values of several types; doubled names
        raise DefinitionsRefused("entity_df", error) from error


def _with_utc(rows: pa.Table) -> pa.Table:
    position = rows.schema.get_field_index(EVENT_TIMESTAMP)
    if position < 0 or not getattr(rows.schema.field(position).type, "tz", None):
        raise DefinitionsRefused(
            "entity_df", f"it must have a column {EVENT_TIMESTAMP} with a time zone"
        )
    moments = rows[EVENT_TIMESTAMP].cast(TIMESTAMP, safe=False)  # a part of a microsecond is cut
    return rows.set_column(position, EVENT_TIMESTAMP, moments)


def _key_as_stored(rows: pa.Table, name: str) -> JoinKey:
    kind = rows.schema.field(name).type
    if pa.types.is_int32(kind):
        return JoinKey(name=name, dtype="INT32")
    return JoinKey(name=name, dtype="INT64" if pa.types.is_integer(kind) else "STRING")
