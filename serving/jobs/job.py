"""What a job is: one record, changed only by putting another version in its place."""

import secrets
from enum import StrEnum

import msgspec


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It cannot be computed; ``reason`` says why."""
    EXPIRED = "expired"
    """Its deadline passed before it was done; what was left was never computed."""
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.EXPIRED, State.CANCELLED})


class Priority(StrEnum):
    """How long a job lets more urgent ones go first."""

    URGENT = "urgent"
    NORMAL = "normal"
    LOW = "low"


PATIENCE_SECONDS = {Priority.URGENT: 0.0, Priority.NORMAL: 60.0, Priority.LOW: 900.0}
"""A job goes after every urgent one that is submitted within so many seconds after it. Then it has
aged enough: nothing that comes later can go before it, so nothing waits forever."""


class Shelf(StrEnum):
    """Where a store keeps a job; each is ordered by a score of its own."""

    QUEUED = "queued"
    """By rank: the next one first."""
    RUNNING = "running"
    """By the end of the lease: the most likely abandoned one first."""
    ENDED = "ended"
    """By when it ended."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job. Times are seconds since 1970, UTC."""

    id: str
    """32 hexadecimal digits: the millisecond of its submission, then 80 random bits, so that ids
    sort by time and cannot be guessed."""
    model: str
    """The name of the endpoint it was submitted to."""
    priority: Priority
    submitted_at: float
    rows: int
    parts: int
    """In how many parts its rows are kept and computed."""
    part_rows: int
    """Rows of each part but the last."""
    request_id: str
    body_sha256: str
    idempotency_key: str | None = None
    deadline: float | None = None
    version: int = 0
    """Goes up by one with every change; a change is refused where it is not the expected one."""
    state: State = State.QUEUED
    reason: str | None = None
    """Why it failed, expired or was cancelled."""
    attempts: int = 0
    """How often it was claimed since its last part was kept."""
    owner: str | None = None
    """Which claim it is: random, so that a process knows its own change from another's."""
    lease_until: float = 0.0
    """Until when the process that claimed it is believed to live."""
    started_at: float | None = None
    ended_at: float | None = None
    digest: str | None = None
    """The bundle that computes every row of it."""
    revision: int | None = None
    parts_done: int = 0
    predicted: int = 0
    refused: int = 0

    @property
    def rank(self) -> float:
        """The moment from which nothing submitted later goes before it: the lowest goes first."""
        return self.submitted_at + PATIENCE_SECONDS[self.priority]

    @property
    def shelf(self) -> Shelf:
        """Where a store keeps it."""
        return Shelf.ENDED if self.state in ENDED else Shelf(self.state)

    @property
    def score(self) -> float:
        """Its place on its shelf."""
        if self.shelf is Shelf.ENDED:
            return self.ended_at or 0.0
        return self.rank if self.shelf is Shelf.QUEUED else self.lease_until

    def seconds_left(self, now: float) -> float:
        """How long until its deadline: below zero when it has passed, infinity without one."""
        return float("inf") if self.deadline is None else self.deadline - now

    def is_late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.seconds_left(now) < 0

    def with_(self, **changes: object) -> "Job":
        """The next version of it, with ``changes``."""
        return msgspec.structs.replace(self, version=self.version + 1, **changes)


def new_id(now: float) -> str:
    """Return an id for a job submitted at ``now``.

    >>> new_id(1.0)[:12], len(new_id(1.0))
    ('0000000003e8', 32)
    """
    return f"{int(now * 1000):012x}{secrets.token_hex(10)}"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Job).decode
