"""``OpenView``: the values of a view that rows of some time can use, read and ordered once.

Of a view's table only the plan's columns and the time in reach are read. Values out of reach are
never used, but they say why a row has none: a value that is too old, or lies in the future, is
another reason than no value at all. So where rows have none, the keys and times of the whole table
are read once, and two moments of each entity kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP, check_columns, check_timestamps, microseconds
from featurestore.freshness import has_value, known_at
from featurestore.join.certificate import SourceRead
from featurestore.join.fingerprint import Fingerprint
from featurestore.join.keys import EntityNumbers, RowKeys
from featurestore.join.pit import JoinedView, NullReason, ViewValues, why_none
from featurestore.join.shares import EVERYONE, EntityShare
from featurestore.offline.tables import scan_table, table_schema
from headrace.plan import ViewRead

Span = tuple[datetime, datetime]
_MOMENT = timedelta(microseconds=1)
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_EVENT, _KNOWN = "event time", "time known"  # in microseconds, beside the keys


@dataclass(frozen=True)
class OpenView:
    """A view's values in reach of a span of moments, ready to be joined to rows of it."""

    offline_uri: str
    read: ViewRead
    share: EntityShare
    values: ViewValues
    source: SourceRead

    def join(self, keys: RowKeys, at: np.ndarray, *, exact_reasons: bool = True) -> JoinedView:
        """Return the values that each row may use: see ``pit.point_in_time_join``.

        Args:
            keys: the rows' join keys.
            at: int64, shape (rows,): the moment of each row, microseconds since 1970, in the span.
            exact_reasons: False saves reading keys and times out of reach; a value there then
                counts as NEVER_SEEN.
        """
        joined = self.values.join(keys, at)
        if exact_reasons:
            lost = np.flatnonzero(
                ~has_value(joined.reasons) & (joined.reasons != NullReason.NULL_KEY)
            )
            if len(lost):
                joined.reasons[lost] = self._starts.why_none(keys, at, lost)
        return joined

    @cached_property
    def _starts(self) -> "_Starts":
        return _Starts.of(self.offline_uri, self.read, self.share)


def open_view(
    offline_uri: str,
    read: ViewRead,
    span: Span | None,
    *,
    share: EntityShare = EVERYONE,
    as_arrow: bool = False,
    fingerprint: bool = True,
) -> OpenView:
    """Read what rows of a span can use of a view, and order it.

    Args:
        offline_uri: where the tables lie; ``settings.uri("offline")``.
        read: the view.
        span: the first and the last moment of the rows, UTC; None: there are none.
        share: the entities to keep.
        as_arrow: keep numbers in the types that the view declares, rather than as float64.
        fingerprint: whether to hash what is read; it is what all entities have, whatever ``share``.

    Raises:
        SchemaMismatch: if the table lacks a column, has one of a wrong type, or a null timestamp.
        UnknownName: if there is no such table.
        StorageFailed: if it cannot be read or is damaged.
    """
    since, until = _reach(read, span)
    source = SourceRead(table=read.table, since=since, until=until, rows=0, sha256="")
    running, rows, kept = Fingerprint(), 0, []
    for piece in _pieces(offline_uri, read, source):
        rows += piece.num_rows
        if fingerprint:
            running.update(piece)
        kept.append(share.filter(piece, read))
    values = ViewValues.of(pa.concat_tables(kept), read, as_arrow=as_arrow)
    sha256 = running.hexdigest() if fingerprint else ""
    done = source.model_copy(update={"rows": rows, "sha256": sha256})
    return OpenView(offline_uri, read, share, values, done)


def read_again(offline_uri: str, read: ViewRead, source: SourceRead) -> SourceRead:
    """What a source holds now of the time that was read; equal to ``source`` if nothing changed.

    Raises:
        SchemaMismatch, UnknownName, StorageFailed: as ``open_view``.
    """
    running, rows = Fingerprint(), 0
    for piece in _pieces(offline_uri, read, source):
        rows += piece.num_rows
        running.update(piece)
    return source.model_copy(update={"rows": rows, "sha256": running.hexdigest()})


def _reach(read: ViewRead, span: Span | None) -> tuple[datetime | None, datetime | None]:
    if span is None:
        return _EARLIEST, _EARLIEST
    first, last = span
    if read.ttl_seconds is None or read.last_known:
        return None, last + _MOMENT
    if first - _EARLIEST < timedelta(seconds=read.ttl_seconds):
        return None, last + _MOMENT
    return first - timedelta(seconds=read.ttl_seconds), last + _MOMENT


def _pieces(offline_uri: str, read: ViewRead, source: SourceRead) -> Iterator[pa.Table]:
    """The rows in reach, in the table's order: first a table without rows."""
    columns = [*read.key_names, *read.timestamps, *(feature.name for feature in read.features)]
    event = pc.field(read.event_timestamp)
    where = pc.scalar(True)
    if source.since is not None:
        where = event >= pa.scalar(source.since, TIMESTAMP)
    if source.until is not None:
        where &= event < pa.scalar(source.until, TIMESTAMP)
    # A null time is neither in reach nor out of it; it must not be passed over in silence.
    yield from _scan(offline_uri, read, columns, where | event.is_null())


def _scan(
    offline_uri: str, read: ViewRead, columns: Sequence[str], where: pc.Expression
) -> Iterator[pa.Table]:
    columns = list(dict.fromkeys(columns))
    schema = table_schema(offline_uri, read.table)
    check_columns(read.table, schema, columns)
    check_timestamps(read.table, schema, read.timestamps)
    yield pa.schema([schema.field(name) for name in columns]).empty_table()
    yield from scan_table(offline_uri, read.table, columns=columns, where=where)


@dataclass(frozen=True)
class _Starts:
    """Of each entity of a table: its first event, and when its first value became known."""

    numbers: EntityNumbers
    event: np.ndarray  # int64 microseconds, shape (entities,)
    known: np.ndarray

    @classmethod
    def of(cls, offline_uri: str, read: ViewRead, share: EntityShare) -> "_Starts":
        columns = [*read.key_names, *read.timestamps]
        pieces = (
            _times(share.filter(piece, read), read)
            for piece in _scan(offline_uri, read, columns, pc.scalar(True))
        )
        firsts = _first_of_each(pa.concat_tables(_first_of_each(p, read) for p in pieces), read)
        numbers, entity = EntityNumbers.of(firsts, read)
        event, known = np.zeros((2, numbers.entities), dtype=np.int64)
        named = entity >= 0
        event[entity[named]] = firsts[_EVENT].to_numpy()[named]
        known[entity[named]] = firsts[_KNOWN].to_numpy()[named]
        return cls(numbers, event, known)

    def why_none(self, keys: RowKeys, at: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """The reason of each of the ``lost`` rows."""
        entity = self.numbers.of_rows(keys)[lost]
        reasons = np.full(len(lost), NullReason.NEVER_SEEN, dtype=np.uint8)
        seen = entity >= 0
        reasons[seen] = why_none(self.event, self.known, entity[seen], at[lost[seen]])
        return reasons


def _times(rows: pa.Table, read: ViewRead) -> pa.Table:
    """The keys of a view's rows, and in microseconds when they were true and when known."""
    event, created = (
        microseconds(rows, read.table, name)
        for name in (read.event_timestamp, read.known_timestamp)
    )
    times = {_EVENT: pa.array(event), _KNOWN: pa.array(known_at(event, created))}
    return pa.table({name: rows[name] for name in read.key_names} | times)


def _first_of_each(times: pa.Table, read: ViewRead) -> pa.Table:
    """One row an entity, with the first of both times."""
    found = times.group_by(list(read.key_names), use_threads=False).aggregate(
        [(_EVENT, "min"), (_KNOWN, "min")]
    )
    return found.rename_columns([*read.key_names, _EVENT, _KNOWN])
