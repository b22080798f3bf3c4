"""Read the online store for a micro-batch of entities: no Feast, no registry, no Arrow.

All views are read at one moment and decoded together (``featurestore.online.rows``). A value is
used by the same rule as in the point-in-time join (``featurestore.freshness``), measured at the
moment of each row and never by this machine's clock.

Where a store fails, a read fails within its deadline, and further ones fail at once until the
store answers again. A reader that was told to degrade gives rows with status ``UNAVAILABLE``
instead. It never makes a failure look like an entity that has no values.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.freshness import ReadStatus
from featurestore.online.breaker import Breaker
from featurestore.online.entities import Entities, Keys
from featurestore.online.entity_cache import EntityCache
from featurestore.online.read_layout import ReadLayout, read_layout
from featurestore.online.rows import OnlineRows, RowDecoder
from featurestore.online.source import NOT_ASKED, Group, Reply, Source, Token, groups_of, objects_of
from featurestore.online.trips import Steps, make_trips, make_trips_soon
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan
from headrace.settings import Settings

__all__ = ["OnlineReader", "OnlineRows", "ReadStatus", "ReaderOptions", "open_online_reader"]

_TRIES = 3  # a view may be written anew between two trips
_TIME, _WORD = np.dtype("datetime64[us]"), np.dtype("<i8")
OpenSource = Callable[[Sequence[Group]], Source]


@dataclass(frozen=True)
class ReaderOptions:
    """How a reader deals with a slow or failing store, and what it keeps."""

    deadline_seconds: float = 1.0
    """How long one trip to the store may take; 50 microseconds an entity are added."""
    retry_seconds: float = 0.5
    """After a failure, how long further reads fail at once before one tries again."""
    degrade: bool = False
    """Give rows with status ``UNAVAILABLE`` where the store fails, instead of an error."""
    cache_seconds: float = 0.0
    """How old a kept row of an entity may be; 0: keep none."""
    cache_rows: int = 10_000
    """How many entities' rows are kept."""


def open_online_reader(
    settings: Settings, plan: FeaturePlan, options: "ReaderOptions | None" = None
) -> "OnlineReader":
    """Open the online store that the settings name.

    Args:
        settings: ``online_uri`` is the path of a SQLite file, a ``redis://`` URL, or ``feast`` for
            the store that ``feature_store.yaml`` names, read through Feast.
        plan: what is read.
        options: the defaults if None.

    Raises:
        FeatureNotMaterialized, OnlineStoreFailed: as ``OnlineReader``.
        DefinitionsRefused: if Feast is asked for and cannot use its definitions.
    """
    if settings.online_uri == "feast":
        from featurestore.feast_plugins.reader import (
            FeastSource,  # brings Feast: seconds and 300 MB
        )

        return OnlineReader(partial(FeastSource, settings), plan, options)
    return OnlineReader(settings.online_uri, plan, options)


class OnlineReader:
    """Reads what a feature plan needs from a SQLite or Redis online store.

    Safe to use from several threads. A materialisation may run at the same time; one call of
    ``read`` sees a SQLite store as it was at one moment, and each entity in Redis.
    """

    def __init__(
        self,
        place: Path | str | OpenSource,
        plan: FeaturePlan,
        options: ReaderOptions | None = None,
    ) -> None:
        """Open the store and check that it holds every feature of the plan.

        Args:
            place: the path of a SQLite file, a ``redis://`` URL, or what opens another source.
            plan: what is read.
            options: the defaults if None.

        Raises:
            FeatureNotMaterialized: if the store, a view or a feature is not there.
            OnlineStoreFailed: if the store cannot be read; not where the reader may degrade.
        """
        self._options = options = options or ReaderOptions()
        self._plan = plan
        self._groups = groups_of(plan.views)
        self._source = _open_source(place, plan.project, self._groups, options)
        self._entities = [Entities(n, g, self._source) for n, g in enumerate(self._groups)]
        self._decoder = RowDecoder(plan, self._groups, self._source)
        self._breaker = Breaker(options.retry_seconds)
        self.cache = EntityCache(options.cache_seconds, options.cache_rows)
        """Rows of hot entities; counts its hits and misses."""
        self._layout: ReadLayout | None = None
        self._key_names = sorted({key.name for g in self._groups for key in g.join_keys})
        self._entities_of = [
            e for e, g in zip(self._entities, self._groups, strict=True) for _ in g.views
        ]
        try:
            make_trips(self._learn(None), self._source.trips)
        except OnlineStoreFailed:
            if not options.degrade:
                self.close()
                raise
        except FeatureNotMaterialized:
            self.close()
            raise

    @property
    def failure(self) -> str | None:
        """Why the store failed when it was last asked; None where it answered."""
        return None if self._breaker.failure is None else str(self._breaker.failure)

    def read(self, keys: Keys, at: np.ndarray) -> OnlineRows:
        """Return the values of each row's entities at each row's moment.

        Args:
            keys: for each join key of the plan one value a row; None: no such entity.
            at: datetime64[us], shape (rows,): the moment of prediction, in UTC. For live traffic
                that is now. A value that became known only later is FUTURE and not used.

        Raises:
            SchemaMismatch: if a join key is missing, or has another number of rows than ``at``.
            EntityKeyRefused: if a key is not of its entity's type.
            FeatureNotMaterialized: if a view is not there any more, or has another definition.
            OnlineStoreFailed: if the store does not answer in time.
            StoredValueBroken: if a value in it is damaged.
        """
        return make_trips(self._read(keys, at), self._source.trips)

    async def read_async(self, keys: Keys, at: np.ndarray) -> OnlineRows:
        """As ``read``, for an event loop, which goes on while the store is asked.

        Where nothing has to be asked, because all rows are kept or the store is a file, it does
        not give up the loop. A call may be cancelled; several may be under way at once.
        """
        if self._source.holds_up:
            return await asyncio.to_thread(self.read, keys, at)
        return await make_trips_soon(self._read(keys, at), self._source.trips)

    def close(self) -> None:
        """Let go of the store; the reader cannot be used afterwards."""
        self._source.close()

    def _read(self, keys: Keys, at: np.ndarray) -> Steps[OnlineRows]:
        moments = np.asarray(at, _TIME).view(_WORD)
        self._check_keys(keys, len(moments))
        tokens = [entities.tokens(keys, len(moments)) for entities in self._entities]
        try:
            return (yield from self._read_tokens(tokens, keys, moments))
        except (OnlineStoreFailed, FeatureNotMaterialized):
            if not self._options.degrade:
                raise
            return self._decoder.unavailable(len(moments))

    def _read_tokens(
        self, tokens: Sequence[Sequence[Token | None]], keys: Keys, moments: np.ndarray
    ) -> Steps[OnlineRows]:
        def entity_key(row: int, view: int) -> bytes:
            return self._entities_of[view].key(keys, row)

        for tried in range(_TRIES):
            signature, replies = yield from self._replies(tokens, len(moments))
            layout = self._layout
            if layout is None or layout.loading or signature not in (None, layout.signature):
                layout = yield from self._learn(signature)
            last = tried == _TRIES - 1
            rows = yield from self._decoder.decode(
                layout, replies, moments, entity_key, last_try=last
            )
            if rows is not None:
                return rows
            self.cache.clear()  # it may hold rows of the earlier generation
        raise AssertionError("the last try decodes")

    def _check_keys(self, keys: Keys, rows: int) -> None:
        if missing := [name for name in self._key_names if name not in keys]:
            raise SchemaMismatch("request", [f"join keys {missing} are missing"])
        if wrong := [name for name in self._key_names if len(keys[name]) != rows]:
            raise SchemaMismatch("request", [f"join keys {wrong} do not have {rows} rows"])

    def _learn(self, signature: Any) -> Steps[ReadLayout]:
        if signature is None:
            signature, _ = yield from self._ask([[] for _ in self._groups])
        try:
            signature, records = yield from self._source.learn(signature)
        except OnlineStoreFailed as error:
            self._breaker.failed(error)
            raise
        self._layout = read_layout(
            self._plan,
            self._decoder.views,
            records,
            signature=signature,
            place=self._source.place,
        )
        return self._layout

    def _ask(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        self._breaker.check()
        try:
            answer = yield from self._source.fetch(wanted)
        except OnlineStoreFailed as error:
            self._breaker.failed(error)
            raise
        self._breaker.answered()
        return answer

    def _replies(
        self, tokens: Sequence[Sequence[Token | None]], rows: int
    ) -> Steps[tuple[Any, Sequence[Reply]]]:
        """The signature of the records (None: all was kept), and by row the joined replies."""
        wanted = [_distinct(some) for some in tokens]
        if self.cache.is_on:
            signature, parts = yield from self._kept_or_asked(wanted)
        else:
            signature, parts = yield from self._ask(wanted)
        by_row = []
        for group, some, distinct, part in zip(self._groups, tokens, wanted, parts, strict=True):
            if len(distinct) == rows:
                by_row.append(part)
            else:
                table = dict(zip(distinct, part, strict=True))
                nothing: Reply = [None] * group.width
                by_row.append([nothing if t is None else table[t] for t in some])
        if len(by_row) == 1:
            return signature, by_row[0]
        joined = [list(chain.from_iterable(parts)) for parts in zip(*by_row, strict=True)]
        return signature, joined if by_row else [[] for _ in range(rows)]

    def _kept_or_asked(
        self, wanted: Sequence[Sequence[Token]]
    ) -> Steps[tuple[Any, list[list[Reply]]]]:
        kept = [self.cache.find(some) for some in wanted]
        missing = [
            [token for token in some if token not in there]
            for some, there in zip(wanted, kept, strict=True)
        ]
        signature = None
        if any(missing):
            asked_at = time.monotonic()
            try:
                signature, parts = yield from self._ask(missing)
            except OnlineStoreFailed:
                if not self._options.degrade:
                    raise
                unasked = [_unasked(group) for group in self._groups]
                parts = [[u] * len(m) for u, m in zip(unasked, missing, strict=True)]
            else:
                for some, part in zip(missing, parts, strict=True):
                    self.cache.keep(some, part, asked_at)
            for there, some, part in zip(kept, missing, parts, strict=True):
                there.update(zip(some, part, strict=True))
        return signature, [
            [there[token] for token in some] for some, there in zip(wanted, kept, strict=True)
        ]


def _open_source(
    place: Path | str | OpenSource, project: str, groups: Sequence[Group], options: ReaderOptions
) -> Source:
    if callable(place):
        return place(groups)
    if "://" in str(place):
        from featurestore.online.redis_source import RedisSource

        return RedisSource(str(place), project, groups, deadline_seconds=options.deadline_seconds)
    from featurestore.online.sqlite_source import SqliteSource

    return SqliteSource(Path(place), project, groups, deadline_seconds=options.deadline_seconds)


def _distinct(tokens: Sequence[Token | None]) -> list[Token]:
    distinct = dict.fromkeys(tokens)
    distinct.pop(None, None)
    return list(distinct)  # type: ignore[arg-type]


def _unasked(group: Group) -> Reply:
    reply: Reply = []
    for view in group.views:
        reply += [NOT_ASKED, None, *[None] * len(objects_of(view))]
    return reply
