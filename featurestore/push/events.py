"""Where events of a stream come from: lines of a file or of standard input.

A source gives events, and takes back which of them are done with: it forgets an event only then.
So a killed consumer is given again what it had not committed (at least once), marked ``again``, and
writes that change nothing the second time make it exactly once. ``redis_events`` is the
other source.
"""

import json
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featurestore.errors import FeatureStoreError
from headrace import storage

STANDARD_INPUT = "-"
_CHUNK_BYTES = 1 << 20


class EventSourceFailed(FeatureStoreError):
    """A file or stream of events that cannot be read."""

    def __init__(self, name: str, reason: object, remedy: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read events of {name}: {reason}. {remedy}")


@dataclass(frozen=True)
class Event:
    """One event as it came."""

    position: str
    """Where it stands in its source; names it for ever."""
    text: bytes
    again: bool = False
    """It has been given out before, to a consumer that may have written it already."""
    refused: str = ""
    """Why it cannot be an event at all, where the source knows."""


class EventSource(Protocol):
    """A stream of events, for one consumer."""

    name: str
    """What reports and errors call it."""

    @property
    def ended(self) -> bool:
        """True if no event will ever come again."""

    def read(self, most: int, *, wait_seconds: float) -> list[Event]:
        """The next events, at most so many; none if none comes in time."""

    def begin_write(self, events: Sequence[Event]) -> None:
        """Remember that these events are about to be written."""

    def commit(self, events: Sequence[Event]) -> None:
        """Forget these events: they are written."""

    def close(self) -> None:
        """Let go of the source; what is not committed will be given again."""


class FileEvents:
    """The lines of a file. Where reading goes on is kept on shared storage, as a byte offset."""

    def __init__(self, path: Path, positions_uri: str) -> None:
        """Open the file where the last consumer has committed.

        Args:
            path: the file, which may grow, but not change.
            positions_uri: folder or URL of the positions of one view's files.

        Raises:
            EventSourceFailed: if it cannot be read, or is shorter than what was read of it.
        """
        path = path.absolute()
        self.name = str(path)
        self._uri = f"{positions_uri}/{storage.sha256(self.name.encode())[:16]}.json"
        self._committed, self._writing = self._last()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise EventSourceFailed(self.name, error.strerror, "Check the path.") from error
        if os.fstat(self._file.fileno()).st_size < self._committed:
            self.close()
            raise EventSourceFailed(
                self.name,
                f"it is shorter than the {self._committed} bytes that were read of it",
                "It is another file now: give it another name.",
            )
        self._file.seek(self._committed)
        self.ended = False

    def read(self, most: int, *, wait_seconds: float) -> list[Event]:  # noqa: ARG002
        """See ``EventSource``. A file does not wait: it ends."""
        events: list[Event] = []
        while len(events) < most and not self.ended:
            start = self._file.tell()
            line = self._file.readline()
            self.ended = not line
            if line.strip():
                events.append(Event(str(start), line.rstrip(), again=start < self._writing))
        return events

    def begin_write(self, events: Sequence[Event]) -> None:
        """See ``EventSource``."""
        self._writing = max(self._writing, self._after(events))
        self._put()

    def commit(self, events: Sequence[Event]) -> None:
        """See ``EventSource``."""
        self._committed = max(self._committed, self._after(events))
        self._put()

    def close(self) -> None:
        """See ``EventSource``."""
        self._file.close()

    def _after(self, events: Sequence[Event]) -> int:
        # Any offset within the last line would do: what is before it is done with.
        return int(events[-1].position) + len(events[-1].text) if events else 0

    def _last(self) -> tuple[int, int]:
        try:
            found = json.loads(storage.read_bytes(self._uri))
        except FileNotFoundError:
            return 0, 0
        return found["committed"], found["writing"]

    def _put(self) -> None:
        document = {"file": self.name, "committed": self._committed, "writing": self._writing}
        storage.write_atomic(self._uri, json.dumps(document).encode())


class StandardInput:
    """The lines of standard input. They cannot be read again: what a kill leaves is lost here."""

    name = "standard input"

    def __init__(self, descriptor: int | None = None) -> None:
        """Read from a descriptor; that of standard input if None."""
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._held = b""
        self._begun, self._number = time.time_ns(), 0
        self._ended = False

    @property
    def ended(self) -> bool:
        """See ``EventSource``."""
        return self._ended and not self._held

    def read(self, most: int, *, wait_seconds: float) -> list[Event]:
        """See ``EventSource``."""
        if not self._ended and b"\n" not in self._held:
            ready, _, _ = select.select([self._descriptor], [], [], wait_seconds)
            if ready:
                chunk = os.read(self._descriptor, _CHUNK_BYTES)
                self._ended = not chunk
                self._held += chunk
        return list(self._lines(most))

    def _lines(self, most: int) -> Iterator[Event]:
        *whole, rest = self._held.split(b"\n", most)
        if self._ended and rest and len(whole) < most and b"\n" not in rest:
            whole, rest = [*whole, rest], b""
        self._held = rest
        for line in whole:
            self._number += 1
            if line.strip():
                yield Event(f"{self._begun}-{self._number}", line)

    def begin_write(self, events: Sequence[Event]) -> None:
        """See ``EventSource``; there is nothing to remember it by."""

    def commit(self, events: Sequence[Event]) -> None:
        """See ``EventSource``; there is nobody to tell."""

    def close(self) -> None:
        """See ``EventSource``."""
