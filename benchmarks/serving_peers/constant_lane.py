"""Our own HTTP lane with a constant answer, no model and no plane: ``constant_lane.py PORT``.

What is left is what any server on this stack pays: the socket, the head, one write.
"""

import sys
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette

from serving.http.heads import Heads
from serving.http.lane import Lane
from serving.http.limits import limits_of
from serving.listener import HttpServer, listen
from serving.query import Done, Query
from serving.settings import ServerSettings

_LINES, _BODY = b"content-type: application/json\r\n", b'{"id":"0","prediction":0.5}'


class Constant:
    """A codec and a plane at once: reads nothing, computes nothing, answers a constant."""

    edge = "constant"

    def decode(self, _body: bytes, _head: object) -> Query:
        """The query."""
        return Query(None, "constant", 1, "0", 0.0)  # type: ignore[arg-type]

    def submit(self, query: Query, done: Done) -> None:
        """Answer it."""
        done(query, None)  # type: ignore[arg-type]

    def encode(self, _answer: object) -> tuple[bytes, bytes]:
        """The answer."""
        return _LINES, _BODY


def main(port: int) -> None:
    """Serve until SIGTERM."""
    settings, constant = ServerSettings(port=port), Constant()
    limits = limits_of(settings)
    watcher: Any = SimpleNamespace(refused=lambda *_: None, answered=lambda *_: None)
    heads = Heads({"/": constant}, limits=limits)  # type: ignore[dict-item]
    lane = Lane(constant, heads, limits, watcher, slow_seconds=1e9)
    server = HttpServer(Starlette(), lane, drain_seconds=1, ready=lambda: None)
    server.run([listen(settings)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
