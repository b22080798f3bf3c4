"""A plain HTTP reverse proxy that does harm, by a seed: before S3, before Prefect's API.

Use it as a context manager; `faults` may be changed at any time, also while requests run::

    with FaultProxy("http://127.0.0.1:5000", seed=7) as proxy:
        proxy.faults = [Fault("reply_lost", share=0.3, methods={"PUT"}, path=r"/manifests/")]
        ask(proxy.url)
        assert proxy.done["reply_lost"]
"""

import asyncio
import contextlib
import dataclasses
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Literal, Self

Mode = Literal[
    "503",  # busy, nothing was done
    "500",  # broken, nothing was done
    "403",  # denied
    "reset",  # the connection breaks before anything was done
    "reply_lost",  # done, and the connection breaks before the reply
    "cut_body",  # the reply's body ends in the middle
    "flip_up",  # one bit of the request's body is another one
    "flip_down",  # one bit of the reply's body is another one
    "stall",  # nothing happens for some seconds, then all goes on
]
MODES: tuple[Mode, ...] = (
    *("503", "reset", "reply_lost", "cut_body", "flip_up", "flip_down", "stall"),
)
"""What may happen and must do no harm; not 403, which is an answer, nor 500, which is as 503."""
_REFUSALS = {
    "503": b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>",
    "500": b"<Error><Code>InternalError</Code><Message>Try again.</Message></Error>",
    "403": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}
_HEAD_BYTES = 1 << 17


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong, with which requests, and how often."""

    mode: Mode
    share: float = 1.0
    methods: frozenset[str] | set[str] = frozenset()
    """Empty: all."""
    path: str = ""
    """A regular expression that the path with its query holds."""
    seconds: float = 5.0
    """How long a stall lasts."""
    times: int | None = None
    """How often at most."""


@dataclasses.dataclass
class _Message:
    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes:
        return next((v for k, v in self.headers if k.lower() == name), b"")

    def encoded(self, *, keep_length: bool = False) -> bytes:
        left_out = {b"connection", b"transfer-encoding", b"expect", b"keep-alive"}
        if not keep_length:
            left_out.add(b"content-length")
        kept = [(k, v) for k, v in self.headers if k.lower() not in left_out]
        if not keep_length:
            kept.append((b"Content-Length", b"%d" % len(self.body)))
        kept.append((b"Connection", b"close"))
        lines = [self.start, *(k + b": " + v for k, v in kept)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


class FaultProxy:
    """Passes requests on to ``upstream`` and back, but for the faults."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        host, _, port = upstream.removeprefix("http://").rstrip("/").partition(":")
        self._upstream = (host, int(port or 80))
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.faults: list[Fault] = []
        self.done: Counter[str] = Counter()
        """How often each mode happened."""
        self.requests: list[tuple[str, str]] = []
        """(method, path) of each request, in the order in which they came."""

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def pause(self) -> None:
        """Listen no more, as a server that is away; what runs is broken off."""
        asyncio.run_coroutine_threadsafe(self._pause(), self._loop).result(10)

    def resume(self) -> None:
        """Listen, on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._resume(), self._loop).result(10)

    @contextlib.contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """These faults, while the block runs."""
        before, self.faults = self.faults, list(faults)
        try:
            yield
        finally:
            self.faults = before

    async def _pause(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resume(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, limit=_HEAD_BYTES
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader, writer)
            if request is not None:
                await self._pass_on(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(
        self, request: _Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, path, _ = request.start.decode("latin-1").split(" ", 2)
        self.requests.append((method, path))
        if request.header(b"upgrade"):
            await self._tunnel(request, reader, writer)
            return
        fault = self._fault(method, path, request)
        mode = fault.mode if fault else None
        if mode == "stall":
            await asyncio.sleep(fault.seconds if fault else 0)
        if mode in _REFUSALS:
            told = b"" if method == "HEAD" else _REFUSALS[mode]
            reply = _Message(f"HTTP/1.1 {mode} Harm".encode(), [], told)
            writer.write(reply.encoded())
            await writer.drain()
            return
        if mode == "reset":
            _reset(writer)
            return
        if mode == "flip_up":
            request.body = self._flipped(request.body)
        reply = await self._ask(request, method)
        if mode == "reply_lost":
            _reset(writer)
            return
        if mode == "flip_down":
            reply.body = self._flipped(reply.body)
        data = reply.encoded(keep_length=method == "HEAD")
        if mode == "cut_body":
            writer.write(data[: len(data) - len(reply.body) // 2 - 1])
            await writer.drain()
            return
        writer.write(data)
        await writer.drain()

    def _fault(self, method: str, path: str, request: _Message) -> Fault | None:
        """The first fault that hits this request; each is drawn for on its own."""
        for fault in self.faults:
            is_meant = (not fault.methods or method in fault.methods) and re.search(
                fault.path, path
            )
            has_body = fault.mode != "flip_up" or request.body
            is_left = fault.times is None or self.done[fault.mode] < fault.times
            if is_meant and has_body and is_left and self._random.random() < fault.share:
                self.done[fault.mode] += 1
                return fault
        return None

    def _flipped(self, body: bytes) -> bytes:
        if not body:
            return body
        bit = self._random.randrange(len(body) * 8)
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    async def _ask(self, request: _Message, method: str) -> _Message:
        reader, writer = await asyncio.open_connection(*self._upstream, limit=_HEAD_BYTES)
        try:
            writer.write(request.encoded())
            await writer.drain()
            reply = await _read(reader, None, is_reply_to=method)
            if reply is None:
                raise ConnectionResetError("the upstream server gave no reply")
            return reply
        finally:
            writer.close()

    async def _tunnel(
        self, request: _Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A websocket: bytes both ways until one side ends.
        there, back = await asyncio.open_connection(*self._upstream)
        lines = [request.start, *(k + b": " + v for k, v in request.headers)]
        back.write(b"\r\n".join(lines) + b"\r\n\r\n")
        both = [
            asyncio.ensure_future(_pump(reader, back)),
            asyncio.ensure_future(_pump(there, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()


async def _read(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter | None,
    *,
    is_reply_to: str | None = None,
) -> _Message | None:
    """One request or reply with its whole body; None where the connection ended before one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head[:-4].split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    message = _Message(start, [(k, v.strip()) for k, _, v in pairs], b"")
    if message.header(b"upgrade"):
        return message
    if writer is not None and message.header(b"expect").lower() == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    if start.startswith(b"HTTP/1.1 100"):
        return await _read(reader, writer, is_reply_to=is_reply_to)
    has_no_body = is_reply_to == "HEAD" or start.split(b" ")[1:2] in ([b"204"], [b"304"])
    if has_no_body:
        return message
    if message.header(b"transfer-encoding").lower() == b"chunked":
        message.body = await _chunks(reader)
    elif length := message.header(b"content-length"):
        message.body = await reader.readexactly(int(length))
    elif is_reply_to is not None:
        message.body = await reader.read()
    return message


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return body


def _reset(writer: asyncio.StreamWriter) -> None:
    # RST rather than FIN, as a machine that died: nothing that is buffered arrives.
    transport = writer.transport
    if not transport.is_closing():
        transport.abort()
