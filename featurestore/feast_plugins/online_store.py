"""Feast's SQLite and Redis online stores, with Headrace's ordered write in place of Feast's.

Only Feast imports this module, where its configuration names one of the two classes. Then
``store.push``, ``write_to_online_store`` and ``store.materialize`` follow the rule of all writes (a
late event never overwrites a newer one, of equal events the one created last counts) and keep the
packed rows and the store's records right. Everything else, above all reading, is Feast's own code
on Feast's own layout.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa
from feast.infra.online_stores.redis import (  # noqa: TID253 - only Feast imports us
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    RedisType,
)
from feast.infra.online_stores.sqlite import (  # noqa: TID253
    SqliteOnlineStore,
    SqliteOnlineStoreConfig,
)
from feast.infra.supported_async_methods import SupportedAsyncMethods  # noqa: TID253

from featurestore.columns import TIMESTAMP
from featurestore.errors import DefinitionsRefused
from featurestore.feast_plugins.offline_write import read_of
from featurestore.push.incoming import view_schema
from featurestore.push.push import write_online
from featurestore.stores.encode import ENCODED
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.sqlite_store import SqliteStore
from featurestore.stores.stored import OnlineStore
from headrace.plan import NUMBERS, ViewRead

SQLITE = "featurestore.feast_plugins.online_store.HeadraceSqliteOnlineStore"
REDIS = "featurestore.feast_plugins.online_store.HeadraceRedisOnlineStore"

_Row = tuple[Any, dict[str, Any], datetime, datetime | None]
"""Feast's: an EntityKey message, a Value message a feature, event and created time."""


class HeadraceSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """The section ``online_store`` of ``feature_store.yaml``; its fields are Feast's."""

    type: Literal["featurestore.feast_plugins.online_store.HeadraceSqliteOnlineStore"] = SQLITE  # type: ignore[assignment]


class HeadraceRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The section ``online_store`` of ``feature_store.yaml``; its fields are Feast's."""

    type: Literal["featurestore.feast_plugins.online_store.HeadraceRedisOnlineStore"] = REDIS  # type: ignore[assignment]


class _OrderedWrite(ABC):
    """Feast's write of a batch, by Headrace's rule."""

    @abstractmethod
    def _open(self, config: Any) -> OnlineStore:
        """Open for writing the store that Feast's configuration names."""

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[_Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that are not older than what is there."""
        if data:
            with closing(self._open(config)) as store:
                view = read_of(table)
                write_online(store, view, _as_table(view, data))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: Any,
        table: Any,
        data: list[_Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, on a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)


class HeadraceSqliteOnlineStore(_OrderedWrite, SqliteOnlineStore):
    """Feast's SQLite store, written by Headrace's rule."""

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Writes only; Feast has no asynchronous read of SQLite."""
        return SupportedAsyncMethods(read=False, write=True)

    def _open(self, config: Any) -> OnlineStore:
        return SqliteStore(Path(self._get_db_path(config)), config.project)


class HeadraceRedisOnlineStore(_OrderedWrite, RedisOnlineStore):
    """Feast's Redis store, written by Headrace's rule."""

    def _open(self, config: Any) -> OnlineStore:
        return RedisStore(redis_url(config.online_store), config.project)


def redis_url(config: RedisOnlineStoreConfig) -> str:
    """The server of a configuration as a URL.

    Raises:
        DefinitionsRefused: for what Headrace's write does not have: clusters, sentinels, keys that
            Redis expires by itself.
    """
    if config.redis_type != RedisType.redis or config.key_ttl_seconds:
        raise DefinitionsRefused(
            "online_store",
            "Headrace writes to one Redis server, where values expire by their view's ttl; for "
            f"redis_type {config.redis_type.value} or key_ttl_seconds use Feast's own type: redis",
        )
    words = config.connection_string
    nodes, options = RedisOnlineStore._parse_connection_string(words)  # noqa: SLF001 - its subclass
    login = ""
    if options.get("password"):
        user = quote(str(options.get("username", "")), safe="")
        login = f"{user}:{quote(str(options['password']), safe='')}@"
    scheme = "rediss" if options.get("ssl") else "redis"
    return f"{scheme}://{login}{nodes[0]['host']}:{nodes[0]['port']}/{options.get('db', 0)}"


def _as_table(view: ViewRead, data: Sequence[_Row]) -> pa.Table:
    """Feast's rows as Arrow columns; what is no number stays the message that Feast has made."""
    names = view.key_names
    keys = [
        dict(zip(key.join_keys, map(_python, key.entity_values), strict=True)) for key, *_ in data
    ]
    columns = {name: pa.array([key[name] for key in keys]) for name in names}
    columns[view.event_timestamp] = _moments([event for _, _, event, _ in data])
    if view.created_timestamp:
        columns[view.created_timestamp] = _moments([made or event for _, _, event, made in data])
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    numbers = [feature for feature in view.features if feature.dtype in NUMBERS]
    types = view_schema(view.model_copy(update={"features": tuple(numbers)}))
    for feature in view.features:
        values = [row[feature.name] for _, row, _, _ in data]
        if feature.dtype in NUMBERS:
            column = pa.array([_python(value) for value in values], types.field(feature.name).type)
            fields.append(pa.field(feature.name, column.type))
        else:
            column = pa.array([value.SerializeToString() for value in values], pa.large_binary())
            fields.append(pa.field(feature.name, column.type, metadata=ENCODED))
        columns[feature.name] = column
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _python(value: Any) -> Any:
    """What a Value message of a number or a key holds; None if it is empty."""
    kind = value.WhichOneof("val")
    return None if kind in (None, "null_val") else getattr(value, kind)


def _moments(times: Sequence[datetime]) -> pa.Array:
    # A time without a zone is in UTC, by Feast's convention.
    aware = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in times]
    return pa.array(aware, TIMESTAMP)
