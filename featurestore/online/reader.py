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
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.freshness import ReadStatus
from featurestore.online.breaker import Breaker
from featurestore.online.entities import Entities, Keys
from featurestore.online.entity_cache import Entity, EntityCache
from featurestore.online.group_decoder import GroupDecoder
from featurestore.online.read_layout import ReadLayout, read_layout
from featurestore.online.reply_check import plain_rows
from featurestore.online.rows import OnlineRows, RowJudge
from featurestore.online.source import Group, Reply, Source, Token, groups_of, objects_of
from featurestore.online.trips import Steps, make_trips, make_trips_soon
from featurestore.online.wanted import EntityRows, Wanted
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
        self._decoders = [GroupDecoder(group, self._source) for group in self._groups]
        self._judge = RowJudge(plan, self._groups, self._source)
        self._has_objects = any(objects_of(view) for g in self._groups for view in g.views)
        self._breaker = Breaker(options.retry_seconds)
        self.cache = EntityCache(options.cache_seconds, options.cache_rows)
        """Rows of hot entities; counts its hits and misses."""
        self._layout: ReadLayout | None = None
        self._learned_at = 0  # of so many connections
        self._key_names = sorted({key.name for g in self._groups for key in g.join_keys})
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
        entities = [group.of(keys, len(moments)) for group in self._entities]
        try:
            for tried in range(_TRIES):
                last = tried == _TRIES - 1
                found = yield from self._rows_of(entities, last_try=last)
                if found is not None:
                    return self._judge.judge(*found, moments)
                self.cache.clear()  # it may hold rows of the earlier generation
        except (OnlineStoreFailed, FeatureNotMaterialized):
            if not self._options.degrade:
                raise
            return self._judge.unavailable(len(moments))
        raise AssertionError("the last try finds rows")

    def _rows_of(
        self, entities: Sequence[Sequence[Entity]], *, last_try: bool
    ) -> Steps[tuple[ReadLayout, list[EntityRows]] | None]:
        """The rows of entities, by group a row a row, and their layout.

        Returns:
            None if rows belong to another layout than others, or than the one known.
        """
        layout, parts, asked_at = self._layout, None, time.monotonic()
        is_sure = True
        wanted = []
        for position, some in enumerate(entities):
            kept = None
            if layout is not None and self.cache.is_on and not last_try:
                kept = self.cache.find(position, some, layout.identity)
            wanted.append(Wanted(some, kept, self._entities[position].tokens))
        if layout is None or any(group.tokens for group in wanted):
            before = layout
            layout, parts = yield from self._asked(wanted, layout)
            # Rows that were asked for before the records may be missing only because their view was
            # still being written: where one is not as rows mostly are, all are asked for again.
            is_sure = layout is before or layout.is_loading or last_try
            is_other = before is not None and before.identity != layout.identity
            if is_other and any(group.kept is not None for group in wanted):
                return None
        answers = yield from self._answers(
            layout, wanted, parts, is_sure=is_sure, last_try=last_try
        )
        if answers is None:
            return None
        rows = []
        for position, (group, answered) in enumerate(zip(wanted, answers, strict=True)):
            if self.cache.is_on and parts is not None and group.asked:
                identity = layout.identity
                self.cache.keep(
                    position, group.asked, answered, identity=identity, asked_at=asked_at
                )
            nobody = layout.groups[position].never_seen, self._decoders[position].no_objects
            rows.append(group.rows(answered, nobody))
        return layout, rows

    def _answers(
        self,
        layout: ReadLayout,
        wanted: Sequence[Wanted],
        parts: Sequence[Sequence[Reply]] | None,
        *,
        is_sure: bool,
        last_try: bool,
    ) -> Steps[list[EntityRows] | None]:
        """By group the rows of the entities that were asked for; None as ``_rows_of``."""
        if parts is not None and not layout.is_loading and not self._has_objects:
            plain = plain_rows(layout, parts, self._source)
            if plain is not None:
                return [EntityRows(rows, [()] * len(rows)) for rows in plain]
        if parts is not None and not is_sure:
            return None
        answers = []
        for position, (group, decoder) in enumerate(zip(wanted, self._decoders, strict=True)):
            laid = layout.groups[position]
            if parts is None:
                count = len(group.asked)
                answers.append(EntityRows([laid.unavailable] * count, [decoder.no_objects] * count))
                continue
            key = partial(self._entity_key, position, group)
            found = yield from decoder.decode(laid, parts[position], key, last_try=last_try)
            if found is None:
                return None
            answers.append(found)
        return answers

    def _asked(
        self, wanted: Sequence[Wanted], layout: ReadLayout | None
    ) -> Steps[tuple[ReadLayout, list[list[Reply]] | None]]:
        """The replies, by group, and the layout that they have.

        The replies are None where the store failed and what is kept goes on to be used.
        """
        try:
            signature, parts = yield from self._ask([group.tokens for group in wanted])
        except OnlineStoreFailed:
            if layout is None or not (self._options.degrade and self.cache.is_on):
                raise
            return layout, None
        layout = self._layout  # which another read may have learned meanwhile
        if self._must_learn(layout, signature):
            layout = yield from self._learn(signature)
        assert layout is not None
        return layout, parts

    def _must_learn(self, layout: ReadLayout | None, signature: Any) -> bool:
        # Behind a new connection may be a Redis started anew, which is being filled with views of
        # the same tags: only their records say that entities may still be missing.
        if layout is None or layout.is_loading or signature != layout.signature:
            return True
        return self._connections() != self._learned_at

    def _connections(self) -> int:
        return 0 if self._source.trips is None else self._source.trips.connections

    def _entity_key(self, position: int, group: Wanted, place: int) -> bytes:
        key = self._entities[position].key(group.asked[place])
        assert key is not None  # only entities are asked for
        return key

    def _check_keys(self, keys: Keys, rows: int) -> None:
        if missing := [name for name in self._key_names if name not in keys]:
            raise SchemaMismatch("request", [f"join keys {missing} are missing"])
        if wrong := [name for name in self._key_names if len(keys[name]) != rows]:
            raise SchemaMismatch("request", [f"join keys {wrong} do not have {rows} rows"])

    def _learn(self, signature: Any) -> Steps[ReadLayout]:
        if signature is None:
            signature, _ = yield from self._ask([[] for _ in self._groups])
        connections = self._connections()
        try:
            signature, records = yield from self._source.learn(signature)
        except OnlineStoreFailed as error:
            self._breaker.failed(error)
            raise
        self._layout = None  # where the views are gone, what comes next must be learned
        layout = read_layout(
            self._plan,
            self._groups,
            records,
            signature=signature,
            place=self._source.place,
        )
        self._layout, self._learned_at = layout, connections
        return layout

    def _ask(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        self._breaker.check()
        try:
            answer = yield from self._source.fetch(wanted)
        except OnlineStoreFailed as error:
            self._breaker.failed(error)
            raise
        self._breaker.answered()
        return answer


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
