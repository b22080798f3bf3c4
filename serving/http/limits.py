"""How much a client may send, and how long it may take: no client can hold the server up.

Deadlines are looked after once a second for all connections, not by a timer a request.
"""

from dataclasses import dataclass

from serving.settings import ServerSettings

_SLOWEST = 100_000
"""Bytes a second: what comes, or is read, at least this fast is not slow."""


@dataclass(slots=True, frozen=True)
class Limits:
    """The limits of every connection; times in seconds."""

    body_bytes: int
    binary_bytes: int
    header_bytes: int
    header_seconds: float
    body_seconds: float
    keep_alive_seconds: float
    write_seconds: float
    connections: int
    linger_seconds: float = 1.0
    """How long a client that was refused may go on sending before it is cut off."""

    def is_slow_body(self, seconds: float, received: int) -> bool:
        """Whether ``received`` bytes after ``seconds`` is too slow for a body."""
        return seconds > self.body_seconds + received / _SLOWEST

    def is_slow_reader(self, seconds: float, read: int) -> bool:
        """Whether ``read`` bytes after ``seconds`` is too slow for one who was answered."""
        return seconds > self.write_seconds + read / _SLOWEST


def limits_of(settings: ServerSettings) -> Limits:
    """Return the limits that the settings say."""
    return Limits(
        body_bytes=settings.max_body_bytes,
        binary_bytes=max(settings.max_binary_bytes, settings.max_body_bytes),
        header_bytes=settings.max_header_bytes,
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        write_seconds=settings.write_seconds,
        connections=settings.max_connections,
    )
