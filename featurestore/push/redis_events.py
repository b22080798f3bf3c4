"""Events of a Redis Stream, shared out to the consumers of a group.

An entry has one field, ``event``, with the event as JSON. Redis keeps what each consumer was given
until it acknowledges it (XACK), which is done after the write. A consumer that comes back is first
given what it had not acknowledged; what another one has left for longer than ``CLAIM_SECONDS`` is
taken over (XAUTOCLAIM), since that one must be dead.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from featurestore.errors import OnlineStoreFailed
from featurestore.push.events import Event, EventSourceFailed
from featurestore.stores.resp import Connection, command, shown
from headrace.errors import UsageError

FIELD = b"event"
GROUP = "headrace"
CLAIM_SECONDS = 300.0
"""Far longer than a live consumer holds events: its flush interval."""
_ANSWER_SECONDS = 30.0  # on top of what a command is told to wait
_TRIMMED = "it was trimmed from the stream before it was read"


class StreamUnnamed(UsageError):
    """A Redis URL that does not say which stream."""

    def __init__(self, url: str) -> None:
        self.url = shown(url)
        super().__init__(
            f"source {self.url} names no stream: write redis://host:port/database?stream=NAME."
        )


class RedisEvents:
    """The entries of one stream for one consumer of a group."""

    ended = False

    def __init__(
        self,
        url: str,
        *,
        group: str = GROUP,
        consumer: str = "",
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        """Connect, and make the group where it is not there: it begins with the first entry.

        Args:
            url: ``redis://host:port/database?stream=NAME``.
            group: consumers of one group share the entries; a view needs a group of its own.
            consumer: this consumer's name in the group, the same after a restart; no two may run
                under one name. This machine's name if left out.
            claim_seconds: after so long an unacknowledged entry of another consumer is taken over.

        Raises:
            StreamUnnamed: if the URL names no stream.
            EventSourceFailed: if Redis cannot be reached, or the name is no stream's.
        """
        parts = urlsplit(url)
        names = parse_qs(parts.query).get("stream", [])
        if len(names) != 1:
            raise StreamUnnamed(url)
        self.name = shown(url)
        self._stream, self._group = names[0].encode(), group.encode()
        self._consumer = (consumer or socket.gethostname()).encode()
        self._claim_seconds = claim_seconds
        self._own: bytes | None = b"0"  # after which own pending entry to go on; None: all seen
        self._claim_from = b"0-0"
        self._next_claim = 0.0
        self._held: set[str] = set()  # given out and not committed; it may be claimed from oneself
        with self._naming():
            server = urlunsplit(parts._replace(query=""))
            self._connection = Connection(server, timeout_seconds=_ANSWER_SECONDS)
            try:
                self._make_group()
            except OnlineStoreFailed:
                self.close()
                raise

    def read(self, most: int, *, wait_seconds: float) -> list[Event]:
        """See ``EventSource``."""
        with self._naming():
            events = self._own_pending(most) or self._claimed(most) or self._new(most, wait_seconds)
        self._held.update(event.position for event in events)
        return events

    def begin_write(self, events: Sequence[Event]) -> None:
        """See ``EventSource``; Redis remembers what it has given out."""

    def commit(self, events: Sequence[Event]) -> None:
        """See ``EventSource``."""
        if events:
            with self._naming():
                self._ask(b"XACK", *self._here, *(event.position.encode() for event in events))
            self._held.difference_update(event.position for event in events)

    def close(self) -> None:
        """See ``EventSource``."""
        self._connection.close()

    @property
    def _here(self) -> tuple[bytes, bytes]:
        return self._stream, self._group

    def _make_group(self) -> None:
        groups = []
        (there,) = self._connection.ask(command(b"EXISTS", self._stream), replies=1)
        if there:
            groups = [
                dict(zip(g[::2], g[1::2], strict=True))
                for g in self._ask(b"XINFO", b"GROUPS", self._stream)
            ]
        if self._group not in [found[b"name"] for found in groups]:
            with contextlib.suppress(OnlineStoreFailed):  # another consumer was first
                self._ask(b"XGROUP", b"CREATE", *self._here, b"0", b"MKSTREAM")

    def _own_pending(self, most: int) -> list[Event]:
        """What this consumer was given before it was restarted."""
        if self._own is None:
            return []
        entries = self._read_group(most, self._own)
        self._own = entries[-1][0] if entries else None
        return _events(entries, again=True)

    def _claimed(self, most: int) -> list[Event]:
        """What a dead consumer has left."""
        if time.monotonic() < self._next_claim:
            return []
        idle = b"%d" % (1000 * self._claim_seconds)
        options = (self._consumer, idle, self._claim_from, b"COUNT", b"%d" % most)
        self._claim_from, entries, *deleted = self._ask(b"XAUTOCLAIM", *self._here, *options)
        if self._claim_from == b"0-0":
            self._next_claim = time.monotonic() + self._claim_seconds / 4
        gone = [[position, None] for position in (deleted[0] if deleted else [])]
        events = _events([*entries, *gone], again=True)
        return [event for event in events if event.position not in self._held]

    def _new(self, most: int, wait_seconds: float) -> list[Event]:
        block = b"%d" % max(1, 1000 * wait_seconds)  # 0 would wait for ever
        return _events(self._read_group(most, b">", b"BLOCK", block), again=False)

    def _read_group(self, most: int, after: bytes, *options: bytes) -> list[Any]:
        words = (b"GROUP", self._group, self._consumer, b"COUNT", b"%d" % most, *options)
        found = self._ask(b"XREADGROUP", *words, b"STREAMS", self._stream, after)
        return list(found[0][1]) if found else []

    def _ask(self, *words: bytes) -> Any:
        return self._connection.ask(command(*words), replies=1)[0]

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OnlineStoreFailed as error:
            remedy = "Check that the server runs and that the name is that of a stream."
            raise EventSourceFailed(self.name, error.reason, remedy) from error


def _events(entries: list[Any], *, again: bool) -> list[Event]:
    return [_event(position.decode(), fields, again) for position, fields in entries]


def _event(position: str, fields: list[bytes] | None, again: bool) -> Event:
    if fields is None:
        return Event(position, b"", again, refused=_TRIMMED)
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    if FIELD not in found:
        text = b" ".join(fields)
        return Event(position, text, again, refused=f"it has no field {FIELD.decode()}")
    return Event(position, found[FIELD], again)
