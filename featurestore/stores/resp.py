"""Talk to Redis over one raw socket: many commands, one round trip.

RESP is the Redis serialization protocol (version 2). Commands are bytes made by the caller, who
can so prepare them once; replies are parsed by hiredis. redis-py does more and costs ten times as
much a command, which is what the online read is made of.
"""

import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from featurestore.errors import OnlineStoreFailed

RECEIVE_BYTES = 1 << 16
"""How much is taken from a socket at once."""
_POLLED_SECONDS = 100e-6
"""For how long an answer is asked for again and again before the thread goes to sleep: a small read
is there in 20 us, and waking up from an idle core costs up to 100."""


def command(*words: bytes) -> bytes:
    """One command as bytes: ``command(b"GET", b"key")``."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def shown(url: str) -> str:
    """The address as errors and reports may show it: without its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Connection:
    """One connection to a Redis server. Not safe to use from two threads at once."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        """Connect, log in and select the database.

        Args:
            url: ``redis://[[user]:password@]host[:port][/database]``; ``rediss`` for TLS.
            timeout_seconds: the longest wait for the connection, and for each reply.

        Raises:
            OnlineStoreFailed: if the server cannot be reached, or refuses.
        """
        parts = urlsplit(url)
        self.place = shown(url)
        self.reader = hiredis.Reader()
        """Makes replies of what came."""
        self._waits: float | None = None  # what the kernel was told; None: Python keeps the time
        with self._naming("reach"):
            host = parts.hostname or "127.0.0.1"
            self.socket = socket.create_connection((host, parts.port or 6379), timeout_seconds)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.is_encrypted = parts.scheme == "rediss"
            if self.is_encrypted:
                context = ssl.create_default_context()
                self.socket = context.wrap_socket(self.socket, server_hostname=host)
        greetings = []
        if parts.password:
            names = [unquote(parts.username).encode()] if parts.username else []
            greetings.append(command(b"AUTH", *names, unquote(parts.password).encode()))
        if database := parts.path.strip("/"):
            greetings.append(command(b"SELECT", database.encode()))
        try:
            self.ask(b"".join(greetings), replies=len(greetings))
        except OnlineStoreFailed:
            self.close()
            raise

    def ask(
        self,
        commands: bytes | Sequence[bytes],
        *,
        replies: int,
        within_seconds: float | None = None,
    ) -> list[Any]:
        """Send commands and return that many replies, in order: one round trip.

        After an error the connection must be closed: replies to this call may still be under way.

        Args:
            commands: as ``command`` makes them.
            replies: how many there are.
            within_seconds: when the last reply must be there; None: each within the connection's
                timeout after the one before.

        Raises:
            OnlineStoreFailed: if the server does not answer in time, or answers with an error.
        """
        begun = time.monotonic()
        try:
            if within_seconds is not None:
                self._wait_at_most(within_seconds)
            self.socket.sendall(commands if isinstance(commands, bytes) else b"".join(commands))
            return self._replies(replies, within_seconds and begun + within_seconds)
        except (OSError, hiredis.HiredisError) as error:
            raise OnlineStoreFailed("ask", self.place, error) from error

    def close(self) -> None:
        """Close the connection; it cannot be used afterwards."""
        self.socket.close()

    def _replies(self, wanted: int, ends: float | None) -> list[Any]:
        replies: list[Any] = []
        next_reply, waited = self.reader.gets, False
        while len(replies) < wanted:
            reply = next_reply()
            if reply is False:
                if ends is not None and waited:  # a server that answers in dribbles
                    self._wait_at_most(max(ends - time.monotonic(), 1e-4))
                self._receive()
                waited = True
            elif isinstance(reply, hiredis.ReplyError):
                raise reply
            else:
                replies.append(reply)
        return replies

    def _wait_at_most(self, seconds: float) -> None:
        """Let the kernel end a wait: Python's own way costs three system calls more a trip."""
        if seconds != self._waits:
            self.socket.setblocking(True)
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.socket.setsockopt(socket.SOL_SOCKET, direction, limit)
            self._waits = seconds

    def _receive(self) -> None:
        received = self._poll()
        if received is None:
            try:
                received = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError as error:
                raise TimeoutError("timed out") from error
        if not received:
            raise ConnectionResetError("the server has closed the connection")
        self.reader.feed(received)

    def _poll(self) -> bytes | None:
        """What has come within ``_POLLED_SECONDS``; None: nothing yet."""
        if self.is_encrypted:
            return None
        give_up = time.perf_counter() + _POLLED_SECONDS
        while time.perf_counter() < give_up:
            try:
                return self.socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()  # whoever else could run here, Redis itself maybe, goes first
        return None

    @contextlib.contextmanager
    def _naming(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, hiredis.HiredisError) as error:
            raise OnlineStoreFailed(action, self.place, error) from error
