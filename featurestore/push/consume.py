"""Consume a stream of events of one view: micro-batches online at once, offline in larger parts.

An event is written online within a micro-batch of its coming, and offline at the next flush, by
size or by time: parts of the offline store are files, and one for each event would choke it. Events
are committed at their source only after the flush. So after a kill the source gives all events
since the last flush again, and nothing is lost; nor is anything doubled: online, rows are ordered
by their times, and offline, rows that the table already holds are left out.

What is no row of the view goes to ``<storage>/rejected_events/<view>/`` with the reason, before it
is committed.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.offline.parts import not_yet_there
from featurestore.push.events import Event, EventSource
from featurestore.push.json_rows import rows_of_events
from featurestore.push.push import Target, write_offline, write_online
from featurestore.stores.stored import OnlineStore
from headrace import storage
from headrace.plan import ViewRead
from headrace.settings import Settings

_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Pace:
    """How events are put together."""

    batch_events: int = 1_000
    """A micro-batch goes online when so many events have come,"""
    batch_seconds: float = 1.0
    """or after so long."""
    flush_events: int = 50_000
    """What has come goes offline when it is so many events,"""
    flush_seconds: float = 60.0
    """or after so long."""


@dataclass
class Consumed:
    """What has been done so far."""

    events: int = 0
    """Events taken from the source; those given again count again."""
    rejected: int = 0
    """Of these, how many were no rows."""
    entities_written: int = 0
    """Online rows that were changed."""
    rows_added: int = 0
    """Offline rows that were added."""
    flushes: int = 0
    """How often events were committed."""


@dataclass
class _Unflushed:
    events: list[Event] = field(default_factory=list)
    rows: list[pa.Table] = field(default_factory=list)
    rows_again: list[pa.Table] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    since: float = 0.0


class Consumer:
    """Takes events from a source until told to stop; keeps what is not flushed yet in memory."""

    def __init__(
        self,
        settings: Settings,
        view: ViewRead,
        source: EventSource,
        *,
        schema: pa.Schema,
        store: OnlineStore | None,
        to: Target = "both",
        pace: Pace | None = None,
    ) -> None:
        """Begin with nothing done.

        Args:
            settings: where the offline store and the rejected events are.
            view: what the events are rows of.
            source: where they come from.
            schema: the columns of an event (``featurestore.push.push.pushed_schema``).
            store: the online store; None if nothing goes there.
            to: which store.
            pace: how large batches and parts are.
        """
        self._settings, self._view, self._source = settings, view, source
        self._schema, self._store, self._to = schema, store, to
        self._pace = pace or Pace()
        self._unflushed = _Unflushed()
        self.done = Consumed()

    def run(
        self,
        *,
        stop: Callable[[], bool],
        idle_seconds: float | None = None,
        flushed: Callable[[Consumed], None] = lambda _: None,
    ) -> Consumed:
        """Consume until the source ends, is idle for so long, or ``stop`` says so.

        A batch that has begun is finished, and everything is flushed, before this returns.

        Args:
            stop: asked after each batch.
            idle_seconds: how long no event may come; None: for ever.
            flushed: told after each flush.
        """
        last_event = time.monotonic()
        while not stop() and not self._source.ended:
            batch = self._gather()
            if batch:
                self._write_batch(batch)
                last_event = time.monotonic()
            if self._is_due():
                self.flush()
                flushed(self.done)
            idle = time.monotonic() - last_event
            if not batch and idle_seconds is not None and idle >= idle_seconds:
                break
        if self._unflushed.events:
            self.flush()
            flushed(self.done)
        return self.done

    def flush(self) -> None:
        """Write offline what has come since the last flush, and commit it."""
        held, self._unflushed = self._unflushed, _Unflushed()
        self._source.begin_write(held.events)
        if held.rejected:
            _write_rejected(self._settings.storage_uri, self._view.view, held.rejected)
        if self._to != "online":
            self.done.rows_added += self._write_offline(held)
        self._source.commit(held.events)
        self.done.flushes += 1

    def _gather(self) -> list[Event]:
        """A micro-batch: full, or as old as it may become."""
        events: list[Event] = []
        wait = until = None
        while len(events) < self._pace.batch_events and not self._source.ended:
            wait = self._pace.batch_seconds if until is None else until - time.monotonic()
            if wait <= 0:
                break
            found = self._source.read(self._pace.batch_events - len(events), wait_seconds=wait)
            if not found and not events:
                break
            if until is None:
                until = time.monotonic() + self._pace.batch_seconds
            events += found
        return events

    def _write_batch(self, batch: list[Event]) -> None:
        held = self._unflushed
        held.since = held.since if held.events else time.monotonic()
        held.events += batch
        self.done.events += len(batch)
        usable = [event for event in batch if not event.refused]
        refused = [(event, event.refused) for event in batch if event.refused]
        rows, positions, bad = rows_of_events(
            self._view, [event.text for event in usable], self._schema
        )
        refused += [(usable[found.row], found.reason) for found in bad]
        held.rejected += [self._rejected(event, reason) for event, reason in refused]
        self.done.rejected += len(refused)
        if not rows.num_rows:
            return
        if self._store is not None:
            _, written = write_online(self._store, self._view, rows)
            self.done.entities_written += written
        again = pa.array([usable[position].again for position in positions])
        held.rows_again.append(rows.filter(again))
        held.rows.append(rows.filter(pc.invert(again)))

    def _is_due(self) -> bool:
        held, pace = self._unflushed, self._pace
        old = time.monotonic() - held.since >= pace.flush_seconds
        return bool(held.events) and (old or len(held.events) >= pace.flush_events)

    def _write_offline(self, held: _Unflushed) -> int:
        rows = _together(held.rows, self._schema)
        again = _together(held.rows_again, self._schema)
        if again.num_rows:
            root = self._settings.uri("offline")
            timestamp = self._view.event_timestamp
            missing = not_yet_there(root, self._view.table, again, timestamp=timestamp)
            rows = pa.concat_tables([missing.select(rows.column_names), rows])
        return write_offline(self._settings, self._view, rows) if rows.num_rows else 0

    def _rejected(self, event: Event, reason: str) -> dict[str, Any]:
        return {
            "source": self._source.name,
            "position": event.position,
            "reason": reason,
            "event": event.text.decode(errors="replace"),
        }


def read_rejected(storage_uri: str, view: str) -> list[dict[str, Any]]:
    """The events of a view that were no rows: ``source``, ``position``, ``reason``, ``event``.

    Each once, though a killed consumer may have written it twice.

    Raises:
        StorageFailed: if they cannot be read.
    """
    found = {(entry["source"], entry["position"]): entry for entry in _entries(storage_uri, view)}
    return list(found.values())


def _entries(storage_uri: str, view: str) -> Iterator[dict[str, Any]]:
    folder = f"{storage_uri}/rejected_events/{view}"
    for name in storage.list_names(folder):
        if name.endswith(_SUFFIX):
            for line in storage.read_bytes(f"{folder}/{name}").splitlines():
                yield json.loads(line)


def _write_rejected(storage_uri: str, view: str, rejected: list[dict[str, Any]]) -> None:
    data = b"".join(json.dumps(entry).encode() + b"\n" for entry in rejected)
    name = storage.sha256(data)[:32] + _SUFFIX
    storage.write_atomic(f"{storage_uri}/rejected_events/{view}/{name}", data)


def _together(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    plain = pa.schema([(column.name, column.type) for column in schema])
    return pa.concat_tables([plain.empty_table(), *tables])
