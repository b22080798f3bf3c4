"""Requests without end over many connections, every outcome counted, and nothing asked twice."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.faults.serving_home import ENDPOINT, RAW, V2


def request(body: bytes = RAW, path: str = V2, *lines: str) -> bytes:
    """A request as bytes."""
    head = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Load:
    """Clients that ask as fast as they are answered, in a thread, until the block ends."""

    def __init__(self, port: int, *, connections: int = 64, sent: bytes | None = None) -> None:
        self.outcomes: Counter[str] = Counter()
        """How many requests ended how: by status, or by the name of what went wrong."""
        self.seconds: list[float] = []
        """How long each good answer took."""
        self.failed_at: list[float] = []
        """When a request failed, by ``time.monotonic()``."""
        self.good_at = 0.0
        """When the last good answer came."""
        self._port, self._connections = port, connections
        self._sent = sent or request()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def answered(self, body: bytes) -> None:
        """Look at a good answer; for loads that know what it must be."""

    @property
    def failed(self) -> dict[str, int]:
        """Everything but good answers."""
        return {how: count for how, count in self.outcomes.items() if how != "200"}

    @property
    def p95(self) -> float:
        """Seconds within which 95 of 100 good answers came."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)]

    async def _run(self) -> None:
        await asyncio.gather(*[self._client() for _ in range(self._connections)])

    async def _client(self) -> None:
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self._fail(f"connect: {type(error).__name__}")
                await asyncio.sleep(0.01)
                continue
            try:
                while not self._stop.is_set() and await self._ask(reader, writer):
                    pass
            except (OSError, EOFError) as error:
                self._fail(type(error).__name__)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        begun = time.monotonic()
        writer.write(self._sent)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        status = head.split()[1].decode()
        self.outcomes[status] += 1
        if status == "200":
            self.good_at = time.monotonic()
            self.answered(body)
            self.seconds.append(self.good_at - begun)
        else:
            self.failed_at.append(time.monotonic())
        return b"connection: close" not in head

    def _fail(self, how: str) -> None:
        self.outcomes[how] += 1
        self.failed_at.append(time.monotonic())


class Process:
    """A server in a process of its own."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, f"the server said {line!r}"
        self.port = int(found[1])

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self.process.pid

    def workers(self) -> list[int]:
        """The processes that it started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def serving(home: Path, *arguments: str, **settings: object) -> Iterator[Process]:
    """The server over ``home``; ``settings`` are its fields."""
    environment = {f"HEADRACE_SERVER_{name.upper()}": str(v) for name, v in settings.items()}
    command = [sys.executable, "-m", "serving", "--endpoint", ENDPOINT, "--port", "0", *arguments]
    server = Process(command, HEADRACE_HOME=str(home), **environment)
    try:
        yield server
    finally:
        server.end()
