"""Jobs in one SQLite file, shared by the processes of one machine.

Written ahead (WAL) and synchronised at each commit: an accepted job survives a power failure.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from serving.jobs.errors import JobStoreFailed, QueueFull
from serving.jobs.job import Job, Shelf, decode, encode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    model TEXT NOT NULL,
    shelf TEXT NOT NULL,
    score REAL NOT NULL,
    idempotency_key TEXT,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_shelf ON jobs (shelf, model, score, id);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_by_key ON jobs (model, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS parts (
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    request BLOB NOT NULL,
    answer BLOB,
    PRIMARY KEY (job, number)
);
"""
_BUSY_SECONDS = 10.0  # how long another process may hold the file


class SqliteJobStore:
    """See ``JobStore``."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        with self._naming("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA secure_delete = ON")  # rows may be personal data
            self._database.executescript(_SCHEMA)

    def add(self, job: Job, requests: Sequence[bytes], *, most: int) -> Job:
        """See ``JobStore``."""
        with self._transaction() as database:
            if job.idempotency_key is not None:
                query = "SELECT record FROM jobs WHERE model = ? AND idempotency_key = ?"
                known = database.execute(query, (job.model, job.idempotency_key)).fetchone()
                if known:
                    return decode(known[0])
            queued = self._count(Shelf.QUEUED, job.model, float("inf"))
            if queued >= most:
                raise QueueFull(job.model, queued)
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.version, job.model, job.shelf, job.score, job.idempotency_key,
                 encode(job)),
            )  # fmt: skip
            database.executemany(
                "INSERT INTO parts (job, number, request) VALUES (?, ?, ?)",
                ((job.id, number, request) for number, request in enumerate(requests)),
            )
        return job

    def get(self, job_id: str) -> Job | None:
        """See ``JobStore``."""
        found = self._records("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def replace(self, old: Job, new: Job, *, answer: bytes | None = None) -> bool:
        """See ``JobStore``."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET version = ?, shelf = ?, score = ?, record = ? "
                "WHERE id = ? AND version = ?",
                (new.version, new.shelf, new.score, encode(new), old.id, old.version),
            )
            if changed.rowcount and answer is not None:
                database.execute(
                    "UPDATE parts SET answer = ? WHERE job = ? AND number = ?",
                    (answer, old.id, old.parts_done),
                )
            return bool(changed.rowcount)

    def first(self, shelf: Shelf, model: str, count: int) -> list[Job]:
        """See ``JobStore``."""
        wanted = "WHERE shelf = ? AND model = ? ORDER BY score, id LIMIT ?"
        return self._records(wanted, (shelf, model, count))

    def count(self, shelf: Shelf, model: str, *, below: float = float("inf")) -> int:
        """See ``JobStore``."""
        with self._lock, self._naming("read"):
            return self._count(shelf, model, below)

    def page(self, count: int, *, before: str | None = None) -> list[Job]:
        """See ``JobStore``."""
        wanted = "WHERE id < ? ORDER BY id DESC LIMIT ?"
        return self._records(wanted, (before or "g", count))  # no hexadecimal digit comes after f

    def request(self, job: Job, number: int) -> bytes:
        """See ``JobStore``."""
        query = "SELECT request FROM parts WHERE job = ? AND number = ?"
        with self._lock, self._naming("read"):
            found = self._database.execute(query, (job.id, number)).fetchone()
        if found is None:
            raise JobStoreFailed("read", str(self._path), f"job {job.id} has no part {number}")
        return bytes(found[0])

    def answers(self, job: Job) -> Iterator[bytes]:
        """See ``JobStore``."""
        query = "SELECT answer FROM parts WHERE job = ? AND number = ? AND answer IS NOT NULL"
        for number in range(job.parts_done):  # one at a time: the file is not held meanwhile
            with self._lock, self._naming("read"):
                found = self._database.execute(query, (job.id, number)).fetchone()
            if found is None:
                reason = f"job {job.id} has no answer of part {number}"
                raise JobStoreFailed("read", str(self._path), reason)
            yield bytes(found[0])

    def remove(self, job: Job) -> None:
        """See ``JobStore``."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
            database.execute("DELETE FROM parts WHERE job = ?", (job.id,))

    def close(self) -> None:
        """See ``JobStore``."""
        with self._lock:
            self._database.close()

    def _records(self, wanted: str, values: tuple[Any, ...]) -> list[Job]:
        with self._lock, self._naming("read"):
            query = f"SELECT record FROM jobs {wanted}"  # noqa: S608  (written in this file)
            return [decode(record) for (record,) in self._database.execute(query, values)]

    def _count(self, shelf: Shelf, model: str, below: float) -> int:
        query = "SELECT count(*) FROM jobs WHERE shelf = ? AND model = ? AND score < ?"
        (count,) = self._database.execute(query, (shelf, model, below)).fetchone()
        return int(count)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._naming("write"):
            # IMMEDIATE: who reads in order to write waits for others before it reads.
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _naming(self, action: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JobStoreFailed(action, str(self._path), error) from error
