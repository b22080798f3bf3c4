"""Results of a batch: which of its queries are answered already, and keeping what the rest come to.

A query is answered from the cache where all of its rows are; else all of them are computed. The
data plane asks where a batch is formed (``raw``, ``keyed``) and tells where it was computed
(``keep``). Queries that bring values of their own, or may have bad rows, are not looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakKeyDictionary

from serving.inputs import Inputs, KeyedRows
from serving.query import Computed, Query
from serving.results.cache import ResultCache
from serving.results.records import Layout, keyed_keys, raw_keys
from serving.schema import Rows
from serving.served import ServedModel


@dataclass(slots=True, frozen=True)
class Found:
    """Queries that are answered, and what their answers are cut out of."""

    inputs: Inputs
    computed: Computed


@dataclass(slots=True, frozen=True)
class _Part:
    """Some queries of a batch."""

    queries: list[Query]
    counts: list[int]
    places: list[int]
    """Of their rows in the batch."""


class Results:
    """The results of a server's models."""

    def __init__(self, cache: ResultCache) -> None:
        self.cache = cache
        self._layouts: WeakKeyDictionary[ServedModel, Layout] = WeakKeyDictionary()

    @property
    def is_shared(self) -> bool:
        """Whether Redis is asked too, so that ``raw`` has to be awaited."""
        return self.cache.shared is not None

    def raw_here(self, model: ServedModel, inputs: Inputs) -> tuple[Found | None, Inputs | None]:
        """Split a batch of raw features by what this process has: answered, and to compute."""
        keys = raw_keys(model, inputs.matrix)
        records = self.cache.find(keys)
        self._count(records, here=_found(records))
        return self._split_raw(model, inputs, keys, records)

    async def raw(self, model: ServedModel, inputs: Inputs) -> tuple[Found | None, Inputs | None]:
        """As ``raw_here``, by what Redis has too."""
        keys = raw_keys(model, inputs.matrix)
        records = await self._find(model, keys, is_keyed=False)
        return self._split_raw(model, inputs, keys, records)

    async def keyed(
        self, model: ServedModel, keyed: KeyedRows
    ) -> tuple[Found | None, KeyedRows | None]:
        """Split a batch of entity keys: answered, and to read and compute."""
        keys = keyed_keys(model, keyed.rows)
        records = await self._find(model, keys, is_keyed=True)
        there, missing = _parts(keyed.queries, keyed.counts, records)
        found = None
        if there.queries:
            computed = self._computed(model, records, there, is_keyed=True)
            rows, at = _cut(keyed.rows, there.places), computed.event_times
            inputs = Inputs(
                there.queries, there.counts, computed.matrix, rows, computed.statuses, at
            )
            found = Found(inputs, computed)
        if not missing.queries:
            return found, None
        if found:
            rows = _cut(keyed.rows, missing.places)
            keyed = KeyedRows(missing.queries, missing.counts, rows)
        keyed.keys = [keys[place] for place in missing.places]
        return found, keyed

    def keep(self, model: ServedModel, inputs: Inputs, computed: Computed) -> None:
        """Keep what a batch came to, for as long as its features are fresh."""
        kept = self.keep_here(model, inputs, computed)
        if self.cache.shared and kept:
            self.cache.shared.keep(inputs.keys, *kept)

    def keep_here(
        self, model: ServedModel, inputs: Inputs, computed: Computed
    ) -> tuple[list[bytes], list[float]] | None:
        """As ``keep``, in this process alone, from any thread; return records and seconds."""
        if not inputs.keys:
            return None
        layout = self._layout(model)
        at = inputs.rows.at if inputs.rows else None
        left = layout.seconds_left(computed, at, self.cache.seconds)
        left[[not _is_plain(q) for q in _by_row(inputs.queries, inputs.counts)]] = 0.0
        records, seconds = layout.records(computed), left.tolist()
        self.cache.keep(inputs.keys, records, seconds)
        return records, seconds

    async def close(self) -> None:
        """Let go of Redis, once what is on its way has arrived."""
        if self.cache.shared:
            await self.cache.shared.close()

    async def _find(
        self, model: ServedModel, keys: list[bytes], *, is_keyed: bool
    ) -> list[bytes | None]:
        records = self.cache.find(keys)
        here = _found(records)
        if self.cache.shared and here < len(keys):
            places = [place for place, record in enumerate(records) if record is None]
            found = await self.cache.shared.find([keys[place] for place in places])
            layout = self._layout(model)
            for place, record in zip(places, found, strict=True):
                if record and layout.fits(record, is_keyed=is_keyed):
                    records[place] = record
        self._count(records, here=here)
        return records

    def _split_raw(
        self, model: ServedModel, inputs: Inputs, keys: list[bytes], records: list[bytes | None]
    ) -> tuple[Found | None, Inputs | None]:
        there, missing = _parts(inputs.queries, inputs.counts, records)
        found = None
        if there.queries:
            computed = self._computed(model, records, there, is_keyed=False)
            found = Found(Inputs(there.queries, there.counts, computed.matrix), computed)
        if not missing.queries:
            return found, None
        if found:
            inputs = Inputs(missing.queries, missing.counts, inputs.matrix[missing.places])
        inputs.keys = [keys[place] for place in missing.places]
        return found, inputs

    def _computed(
        self, model: ServedModel, records: list[bytes | None], part: _Part, *, is_keyed: bool
    ) -> Computed:
        taken = [record for place in part.places if (record := records[place])]
        computed = self._layout(model).computed(taken, is_keyed=is_keyed)
        computed.cached = True
        return computed

    def _layout(self, model: ServedModel) -> Layout:
        layout = self._layouts.get(model)
        if layout is None:
            layout = self._layouts[model] = Layout(model.predictor.plan)
        return layout

    def _count(self, records: list[bytes | None], *, here: int) -> None:
        found = _found(records)
        self.cache.count(hits=here, shared_hits=found - here, misses=len(records) - found)


def _parts(
    queries: Sequence[Query], counts: Sequence[int], records: Sequence[bytes | None]
) -> tuple[_Part, _Part]:
    """The queries whose every row was found, and the others."""
    there, missing, begin = _Part([], [], []), _Part([], [], []), 0
    for query, count in zip(queries, counts, strict=True):
        end = begin + count
        is_there = _is_plain(query) and None not in records[begin:end]
        part = there if is_there else missing
        part.queries.append(query)
        part.counts.append(count)
        part.places.extend(range(begin, end))
        begin = end
    return there, missing


def _is_plain(query: Query) -> bool:
    return not query.overrides and not query.partial


def _by_row(queries: Sequence[Query], counts: Sequence[int]) -> list[Query]:
    return list(chain.from_iterable([q] * n for q, n in zip(queries, counts, strict=True)))


def _cut(rows: Rows, places: Sequence[int]) -> Rows:
    return Rows(
        keys={name: [values[place] for place in places] for name, values in rows.keys.items()},
        request={name: column[places] for name, column in rows.request.items()},
        at=rows.at[places],
    )


def _found(records: Sequence[bytes | None]) -> int:
    return sum(record is not None for record in records)
