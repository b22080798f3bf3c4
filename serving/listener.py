"""From a listening socket to an ended server: uvicorn, with signals that end it in order."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from serving.errors import PortTaken


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host:port``.

    Bound before anything is loaded, so that a taken port is known at once.

    Raises:
        PortTaken: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise PortTaken(host, port, error.strerror or str(error)) from error


def run(
    app: ASGIApp, listening: socket.socket, *, drain_seconds: int, ready: Callable[[], str]
) -> None:
    """Serve ``app`` until SIGTERM or Ctrl-C, then let requests under way end.

    Args:
        app: the application.
        listening: from ``listen``.
        drain_seconds: how long requests may take to end.
        ready: what to say in the line that is printed once connections are answered.
    """
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        # Who is asking is what the connection says: a header is anybody's word.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )
    _Server(config, ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], str]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        sys.stdout.write(f"ready: {self._ready()} at {url} (docs: {url}/docs)\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again after its shutdown, which would make the exit code that
        # of a killed process: a server that was asked to end, and did, has done its work.
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
