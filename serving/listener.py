"""From a listening socket to an ended server: uvicorn, with a drain that loses no request.

SIGTERM or Ctrl-C: the server says that it is not ready, takes no new connections, and answers
those that it has: a request under way, and one more of each client that is just about to send it,
each with ``Connection: close``, so that no client is cut off in the middle of a thought. It ends
when all have gone, at the latest after ``drain_seconds``. A second Ctrl-C ends it at once.
"""

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serving.errors import PortTaken
from serving.http.lane import Lane
from serving.http.protocol import HttpConnection
from serving.settings import ServerSettings

_BACKLOG = 2048


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket bound to the host and port of the settings.

    Bound before anything is loaded, so that a taken port is known at once.

    Raises:
        PortTaken: if it cannot be had.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise PortTaken(host, port, error.strerror or str(error)) from error
    # What a client leaves unread in the kernel's buffer is out of this process's sight: the kernel
    # looks after it, whenever it probes: ever more rarely, so up to half as late again. Accepted
    # connections inherit the option; milliseconds. Not every system has it.
    if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        listening.setsockopt(socket.IPPROTO_TCP, option, int(settings.write_seconds * 1000 * 2 / 3))
    return listening


def address(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, then drains. ``run([listening])`` blocks until it has."""

    def __init__(
        self,
        app: ASGIApp,
        lane: Lane,
        *,
        drain_seconds: float,
        ready: Callable[[], object],
        parent: socket.socket | None = None,
    ) -> None:
        """Be ready to run.

        Args:
            app: what answers all requests that are not hot.
            lane: what answers those that are.
            drain_seconds: how long the drain may take.
            ready: called once connections are answered.
            parent: a connection to the process that started this one; its end ends this one too.
        """
        config = uvicorn.Config(
            app,
            loop="uvloop",
            # uvicorn calls what it is given as it would a class.
            http=functools.partial(HttpConnection, lane),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            backlog=_BACKLOG,
            access_log=False,
            log_config=None,
            # Who is asking is what the connection says: a header is anybody's word.
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self._lane, self._drain_seconds = lane, drain_seconds
        self._ready, self._parent = ready, parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: D102
        await super().startup(sockets)
        if self._parent is not None:
            asyncio.get_running_loop().add_reader(self._parent, self._parent_has_gone)
        self._ready()

    async def on_tick(self, counter: int) -> bool:  # noqa: D102
        self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: D102
        await asyncio.sleep(0)  # accept what already waits: closing would refuse it
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        for connection in self._connections:
            connection.shutdown()
        await self._drained()
        for connection in self._connections:
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _drained(self) -> None:
        """Return when nothing is under way any more, or when it has taken too long."""
        state, loop = self.server_state, asyncio.get_running_loop()
        end = loop.time() + self._drain_seconds
        while (state.connections or state.tasks) and not self.force_exit:
            left = end - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(0.05, left))
            self._look()

    def _look(self) -> None:
        """Look after dates and deadlines, once a second by the clock: ticks of a busy loop drag."""
        if self._lane.clock() - self._lane.now >= 1.0:
            self._lane.second(self._connections)

    @property
    def _connections(self) -> list[HttpConnection]:
        return list(self.server_state.connections)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: D102
        # Not ready from this moment on, and not from the next tick.
        self._lane.drain()
        super().handle_exit(sig, frame)

    def _parent_has_gone(self) -> None:
        if self._parent is not None:
            asyncio.get_running_loop().remove_reader(self._parent)
        self.handle_exit(signal.SIGTERM, None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # noqa: D102
        # uvicorn raises the signal again after its shutdown, which would make the exit code that
        # of a killed process: a server that was asked to end, and did, has done its work.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
