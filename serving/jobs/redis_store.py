"""Jobs in Redis, shared by processes anywhere.

``headrace:jobs:job:<id>`` holds a job's version and record, ``...:requests:<id>`` and
``...:answers:<id>`` its parts by number, ``...:<shelf>:<model>`` the ids of a shelf by score,
``...:ids`` all ids in their own order, ``...:key:<model>:<key>`` the id of an idempotency key. Each
change is one Lua script, which Redis runs alone: whole or not at all.

A Redis that keeps nothing on disk forgets its jobs when it ends: turn on ``appendonly``. One that
evicts keys under memory pressure loses parts: keep ``maxmemory-policy noeviction``.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from featurestore.errors import OnlineStoreFailed
from featurestore.stores.resp import Connection, command, shown
from serving.jobs.errors import JobStoreFailed, QueueFull
from serving.jobs.job import Job, Shelf, decode, encode

_PREFIX = "headrace:jobs:"
_ANSWER_SECONDS = 5.0
_MANY_PARTS = 64  # of a part's request or answer, sent or asked for in one trip

_ADD = b"""
if KEYS[4] ~= '' then
  local known = redis.call('GET', KEYS[4])
  if known then
    local record = redis.call('HGET', ARGV[5] .. known, 'record')
    if record then return {record, -1} end
  end
end
local queued = redis.call('ZCARD', KEYS[2])
if queued >= tonumber(ARGV[4]) then return {false, queued} end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'record', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('PERSIST', KEYS[5])
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[1]) end
return {false, -1}
"""
_REPLACE = b"""
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'record', ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[4], ARGV[6], ARGV[7]) end
return 1
"""


class RedisJobStore:
    """See ``JobStore``."""

    def __init__(self, url: str) -> None:
        self._url, self._place = url, shown(url)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closed = False
        self._ask([command(b"PING")])

    def add(self, job: Job, requests: Sequence[bytes], *, most: int) -> Job:
        """See ``JobStore``. The parts go first: a job that can be seen is whole.

        They expire unless the job follows: a server that is killed in between leaves nothing.
        """
        requests_key = _key("requests", job.id)
        for start in range(0, len(requests), _MANY_PARTS):
            some = enumerate(requests[start : start + _MANY_PARTS], start)
            pairs = [word for number, request in some for word in (b"%d" % number, request)]
            self._ask(
                [command(b"HSET", requests_key, *pairs), command(b"EXPIRE", requests_key, b"3600")]
            )
        given = job.idempotency_key
        keys = (
            _key("job", job.id),
            _key(job.shelf, job.model),
            _key("ids"),
            _key("key", job.model, given) if given is not None else b"",
            requests_key,
        )
        record, queued = self._eval(
            _ADD, keys, job.id, job.version, encode(job), most, _key("job", ""), repr(job.score)
        )
        if record is None and queued < 0:
            return job
        self._ask([command(b"DEL", requests_key)])
        if record is None:
            raise QueueFull(job.model, queued)
        return decode(record)

    def get(self, job_id: str) -> Job | None:
        """See ``JobStore``."""
        (record,) = self._ask([command(b"HGET", _key("job", job_id), b"record")])
        return decode(record) if record else None

    def replace(self, old: Job, new: Job, *, answer: bytes | None = None) -> bool:
        """See ``JobStore``."""
        keys = (
            _key("job", old.id),
            _key(old.shelf, old.model),
            _key(new.shelf, new.model),
            _key("answers", old.id),
        )
        number = "" if answer is None else old.parts_done
        told = (old.id, old.version, new.version, encode(new), repr(new.score))
        return bool(self._eval(_REPLACE, keys, *told, number, answer or b""))

    def first(self, shelf: Shelf, model: str, count: int) -> list[Job]:
        """See ``JobStore``."""
        return self._records(command(b"ZRANGE", _key(shelf, model), b"0", b"%d" % (count - 1)))

    def count(self, shelf: Shelf, model: str, *, below: float = float("inf")) -> int:
        """See ``JobStore``."""
        limit = f"({below!r}".encode()
        (count,) = self._ask([command(b"ZCOUNT", _key(shelf, model), b"-inf", limit)])
        return int(count)

    def page(self, count: int, *, before: str | None = None) -> list[Job]:
        """See ``JobStore``."""
        newest = f"({before}".encode() if before else b"+"
        limit = (b"LIMIT", b"0", b"%d" % count)
        return self._records(command(b"ZREVRANGEBYLEX", _key("ids"), newest, b"-", *limit))

    def request(self, job: Job, number: int) -> bytes:
        """See ``JobStore``."""
        (found,) = self._ask([command(b"HGET", _key("requests", job.id), b"%d" % number)])
        if found is None:
            raise JobStoreFailed("read", self._place, f"job {job.id} has no part {number}")
        return bytes(found)

    def answers(self, job: Job) -> Iterator[bytes]:
        """See ``JobStore``."""
        for start in range(0, job.parts_done, _MANY_PARTS):
            numbers = range(start, min(start + _MANY_PARTS, job.parts_done))
            words = (b"%d" % number for number in numbers)
            (some,) = self._ask([command(b"HMGET", _key("answers", job.id), *words)])
            for number, answer in zip(numbers, some, strict=True):
                if answer is None:
                    reason = f"job {job.id} has no answer of part {number}"
                    raise JobStoreFailed("read", self._place, reason)
                yield bytes(answer)

    def remove(self, job: Job) -> None:
        """See ``JobStore``."""
        member = job.id.encode()
        keys = [_key(part, job.id) for part in ("job", "requests", "answers")]
        if job.idempotency_key is not None:
            keys.append(_key("key", job.model, job.idempotency_key))
        shelves = [command(b"ZREM", _key(shelf, job.model), member) for shelf in Shelf]
        rest = [command(b"ZREM", _key("ids"), member), command(b"DEL", *keys)]
        self._ask([command(b"MULTI"), *shelves, *rest, command(b"EXEC")])

    def close(self) -> None:
        """See ``JobStore``."""
        with self._lock:
            self._closed = True
            self._drop()

    def _records(self, ask_ids: bytes) -> list[Job]:
        (ids,) = self._ask([ask_ids])
        if not ids:
            return []
        found = self._ask([command(b"HGET", _key("job", i.decode()), b"record") for i in ids])
        return [decode(record) for record in found if record]  # None: removed in between

    def _eval(self, script: bytes, keys: tuple[bytes, ...], *words: object) -> Any:
        told = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        (reply,) = self._ask([command(b"EVAL", script, b"%d" % len(keys), *keys, *told)])
        return reply

    def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        """One round trip. A connection that failed is dropped; the caller may try again.

        Nothing is sent twice on its own: whether a change was made before the failure is not
        known here, and every change is one that its caller can look up.
        """
        with self._lock:
            if self._closed:  # a thread that is late must not open another connection
                raise JobStoreFailed("reach", self._place, "the store was closed")
            try:
                if self._connection is None:
                    self._connection = Connection(self._url, timeout_seconds=_ANSWER_SECONDS)
                return self._connection.ask(commands, replies=len(commands))
            except OnlineStoreFailed as error:
                self._drop()
                raise JobStoreFailed("reach", self._place, error.reason) from error

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _key(*parts: str) -> bytes:
    return (_PREFIX + ":".join(parts)).encode()
