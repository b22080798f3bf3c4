"""A server on a real socket, in a thread: for tests of what only a connection shows."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from serving.app import Server
from serving.listener import HttpServer


@contextlib.contextmanager
def live(server: Server) -> Iterator[int]:
    """Serve on a free port until the block ends; gives the port."""
    ready = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    http = HttpServer(server.app, server.lane, drain_seconds=1, ready=ready.set)
    thread = threading.Thread(target=http.run, args=([listening],))
    thread.start()
    try:
        assert ready.wait(20)
        yield listening.getsockname()[1]
    finally:
        http.should_exit = True
        thread.join()
        listening.close()
