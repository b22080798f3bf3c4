"""What all connections of a process share: where queries go, the routes, the limits, the clock."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from headrace.errors import HeadraceError
from serving.http.caller import Networks
from serving.http.heads import Heads
from serving.http.limits import Limits
from serving.http.responses import date_now, opening
from serving.query import Done, Query


class Plane(Protocol):
    """Who computes; ``serving.dataplane.DataPlane`` is the real one."""

    def submit(self, query: Query, done: Done) -> None:
        """Answer ``query``: call ``done`` on the loop, once, unless it was dropped."""


class Watcher(Protocol):
    """Who counts and logs what the plane does not see."""

    def refused(
        self, edge: str, status: int, caller: str, request_id: str, error: HeadraceError
    ) -> None:
        """Take note of a request, or of a connection, that got an error."""

    def answered(self, edge: str, seconds: float, caller: str, request_id: str) -> None:
        """Take note of an answered request; the hot lane tells only what took long."""


@dataclass(slots=True, eq=False)
class Lane:
    """One a process."""

    plane: Plane
    heads: Heads
    limits: Limits
    watcher: Watcher
    trusted: Networks = ()
    slow_seconds: float = 1.0
    """Requests that took longer are told to the watcher; 0: all are."""

    draining: bool = False
    """Whether every answer is the last of its connection."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    now: float = 0.0
    """What the clock said at the last look at the connections: asking it costs more than that."""
    date: bytes = field(default_factory=date_now)
    ok: bytes = b""
    """How a good response begins."""

    def __post_init__(self) -> None:
        """Be ready for the first request."""
        self.now = self.clock()
        self._say_date()

    def second(self, connections: Iterable["Watched"]) -> None:
        """Do what is due once a second: the date, and the deadlines of all connections."""
        self.now = self.clock()  # a busy loop is late: a second is what the clock says it is
        self._say_date()
        for connection in list(connections):
            connection.look()

    def drain(self) -> None:
        """Make every answer from now on the last of its connection."""
        self.draining = True
        self._say_date()

    def _say_date(self) -> None:
        self.date = date_now()
        self.ok = opening(200, self.date, close=self.draining)


class Watched(Protocol):
    """A connection with deadlines."""

    def look(self) -> None:
        """Close it if a deadline is over."""
