import asyncio
import contextlib
import functools
import socket
import threading
import time

import msgspec
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.errors import BodyRefused
from serving.http.codec import new_request_id
from serving.http.heads import Heads
from serving.http.lane import Lane
from serving.http.limits import Limits
from serving.http.protocol import HttpConnection
from serving.query import Answer, Query

LIMITS = Limits(
    body_bytes=50_000,
    binary_bytes=200_000,
    header_bytes=2_000,
    header_seconds=2,
    body_seconds=2,
    keep_alive_seconds=5,
    write_seconds=2,
    connections=10,
)


class Echo:
    """A codec whose answer is what was asked; "bad" is refused and "broken" is a fault of ours."""

    edge = "echo"

    def decode(self, body, head):
        if body == b"bad":
            raise BodyRefused("it is bad")
        if body == b"broken":
            raise ZeroDivisionError("a fault")
        name = head.request_id or new_request_id()
        query = Query(None, "echo", 1, name, time.perf_counter(), [])
        query.instances = [body, head]
        return query

    def encode(self, answer):
        body, head = answer.query.instances
        heard = {"name": head.name, "version": head.version, "length": len(body)}
        heard["body"] = body[:100].decode("latin-1")
        return b"content-type: application/json\r\n", msgspec.json.encode(heard)

    def encode_error(self, error, request_id):
        return msgspec.json.encode({"error": str(error), "request_id": request_id})


class Plane:
    """Answers all that came in a turn of the loop in the next one; what says "wait", on demand."""

    def __init__(self):
        self.held, self.dropped, self.asked = [], 0, 0

    def submit(self, query, done):
        query.done = done
        self.asked += 1
        if query.instances[0].startswith(b"wait"):
            self.held.append(query)
        else:
            asyncio.get_running_loop().call_soon(self.answer, query)

    def answer(self, query):
        if query.done is None:
            self.dropped += 1
        else:
            query.done(query, Answer(query, None, 0, 1))


class Watched:
    """What was told to the log."""

    def __init__(self):
        self.refusals, self.answers = [], []

    def refused(self, edge, status, caller, request_id, error):
        self.refusals.append((edge, status, caller))

    def answered(self, edge, seconds, caller, request_id):
        self.answers.append((edge, caller))


async def framework(scope, receive, send):
    """The web framework: says which path and how many bytes it got."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    content = f"framework {scope['path']} {size}".encode()
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Served:
    """A lane that answers on a port, on a loop in a thread of its own."""

    def __init__(self):
        self.plane, self.watcher = Plane(), Watched()
        heads = Heads({"/infer": Echo()}, Echo(), limits=LIMITS)
        self.time = 0.0
        self.lane = Lane(self.plane, heads, LIMITS, self.watcher, clock=lambda: self.time)
        self.loop, self.state = uvloop.new_event_loop(), ServerState()
        config = uvicorn.Config(framework, log_config=None)
        config.load()
        protocol = functools.partial(
            HttpConnection, self.lane, config=config, server_state=self.state, app_state={}
        )
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        making = self.loop.create_server(lambda: protocol(_loop=self.loop), "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(making, self.loop).result(5)
        self.port = self.server.sockets[0].getsockname()[1]

    def on_loop(self, call, *given):
        """Do something on the loop's thread, and wait for it."""

        async def do():
            return call(*given)

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result(5)

    def seconds(self, count):
        """Let ``count`` seconds pass for the deadlines, at once."""
        for _ in range(count):
            self.time += 1.0
            self.on_loop(self.lane.second, list(self.state.connections))

    def close(self):
        self.on_loop(self.server.close)
        for connection in list(self.state.connections):
            self.on_loop(connection.transport.abort)
        self.on_loop(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @contextlib.contextmanager
    def client(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            yield Client(connection)


class Client:
    """A raw connection."""

    def __init__(self, connection):
        self.socket, self._kept = connection, b""

    def send(self, *parts, pause=0.02):
        for number, part in enumerate(parts):
            if number:
                time.sleep(pause)  # so that parts arrive apart
            self.socket.sendall(part)

    def answer(self):
        """The next answer: status, headers, body."""
        while b"\r\n\r\n" not in self._kept:
            self._read()
        head, _, self._kept = self._kept.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        while len(self._kept) < length:
            self._read()
        body, self._kept = self._kept[:length], self._kept[length:]
        return int(first.split()[1]), headers, body

    def is_closed(self):
        """Whether the server ends the connection, and says nothing more before."""
        try:
            return self._kept == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self):
        more = self.socket.recv(65_536)
        assert more, f"the connection ended behind {self._kept!r}"
        self._kept += more


@pytest.fixture
def served():
    served = Served()
    yield served
    served.close()


def post(path="/infer", body=b"{}", *lines, version="1.1"):
    """A request as bytes."""
    head = [f"POST {path} HTTP/{version}", "Host: here", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture(name="post")
def _post():
    return post
