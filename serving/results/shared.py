"""Results that several servers share, in Redis.

The look-ups of a batch are one round trip, and what was computed is written without anybody waiting
for it. Redis is a convenience here: whatever goes wrong with it, results are simply not found, and
it is left alone for a while.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PREFIX = b"headrace:result:1:"
_HASH_BYTES = 16
_MOST_WRITES = 16
"""Batches that may be on their way to Redis; what comes on top is not written."""
_logger = logging.getLogger(__name__)


class SharedResults:
    """Results in Redis. On one event loop only."""

    def __init__(
        self, url: str, *, deadline_seconds: float = 0.05, retry_seconds: float = 0.5
    ) -> None:
        """Connect when it is first asked.

        Args:
            url: ``redis://host:port/database``.
            deadline_seconds: how long one look-up may take.
            retry_seconds: how long Redis is left alone after it failed.
        """
        self._url, self._deadline, self._retry = url, deadline_seconds, retry_seconds
        self._client: Redis | None = None
        self._away_until = 0.0
        self._writes: set[asyncio.Task[None]] = set()
        self.failure: str | None = None
        """Why Redis was not of use when it was last asked; None where it was."""

    async def find(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the record of each key that Redis has; none where it does not answer in time."""
        nothing: list[bytes | None] = [None] * len(keys)
        if not keys or time.monotonic() < self._away_until:
            return nothing
        try:
            async with asyncio.timeout(self._deadline):
                found = await self._connected().mget([_name(key) for key in keys])
        except _failures() as error:
            self._fail(error)
            return nothing
        self.failure = None
        return list(found)

    def keep(
        self, keys: Sequence[bytes], records: Sequence[bytes], seconds: Sequence[float]
    ) -> None:
        """Write records for some time each, in the background; those below 1 ms are not."""
        if len(self._writes) >= _MOST_WRITES or time.monotonic() < self._away_until:
            return
        lasting = [
            (_name(key), record, int(1000 * left))
            for key, record, left in zip(keys, records, seconds, strict=True)
            if left >= 0.001
        ]
        if lasting:
            task = asyncio.get_running_loop().create_task(self._write(lasting))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Write what is on its way, and let go of Redis."""
        await asyncio.gather(*self._writes, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    async def _write(self, lasting: Sequence[tuple[bytes, bytes, int]]) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                pipeline = self._connected().pipeline(transaction=False)
                for name, record, milliseconds in lasting:
                    pipeline.set(name, record, px=milliseconds)
                await pipeline.execute()
        except _failures() as error:
            self._fail(error)

    def _connected(self) -> "Redis":
        if self._client is None:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            self._client = Redis.from_url(
                self._url,
                socket_timeout=self._deadline,
                socket_connect_timeout=self._deadline,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    def _fail(self, error: Exception) -> None:
        reason = str(error) or f"no answer within {self._deadline:g} s"
        if self.failure is None:
            _logger.warning("shared results are not used: %s", reason)
        self.failure, self._away_until = reason, time.monotonic() + self._retry


def _name(key: bytes) -> bytes:
    return _PREFIX + hashlib.blake2b(key, digest_size=_HASH_BYTES).hexdigest().encode()


def _failures() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)
