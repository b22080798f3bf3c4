"""Every change of a job, each one compare-and-swap: submit, claim, keep, end, cancel.

A process claims a job for as long as its lease runs and renews it while it lives. Every change
names the version that it starts from, so a process that was thought dead, or whose job was
cancelled, changes nothing any more: its next change is refused, and it lets go.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from serving.jobs.errors import JobEnded, JobNotFound, KeyReused
from serving.jobs.job import ENDED, Job, Priority, Shelf, State, new_id
from serving.jobs.store import JobStore

MOST_ATTEMPTS = 3
"""How often a job may be claimed without keeping one part: it may be what ends the servers."""
_LOOKED_AT = 8  # jobs read at once in the search for one to claim


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait, how long a lease and a result last."""

    most_queued: int
    lease_seconds: float
    keep_seconds: float


class JobEvents:
    """What becomes of jobs, for whoever counts it; called on any thread."""

    def began(self, job: Job, waited_seconds: float) -> None:
        """A job was claimed for the first time."""

    def ended(self, job: Job) -> None:
        """A job has ended, in whichever way."""

    def queued(self, model: str, jobs: int) -> None:
        """So many jobs of a model wait."""


class JobQueue:
    """Jobs as their callers and their runners change them; safe to call from several threads."""

    def __init__(
        self,
        store: JobStore,
        limits: Limits,
        *,
        events: JobEvents | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.limits, self._clock = store, limits, clock
        self._events = events or JobEvents()

    def submit(
        self,
        model: str,
        parts: Sequence[bytes],
        *,
        rows: int,
        part_rows: int,
        priority: Priority = Priority.NORMAL,
        deadline_seconds: float | None = None,
        idempotency_key: str | None = None,
        request_id: str = "",
    ) -> Job:
        """Keep a new job, or return the one that has the idempotency key already.

        Args:
            model: the endpoint that computes it.
            parts: its rows, in parts that are computed one after the other.
            rows: how many there are in all.
            part_rows: how many are in each part but the last.
            priority: how long more urgent jobs may go before it.
            deadline_seconds: from now; what is not computed by then never is.
            idempotency_key: the caller's name of this job: sent twice, it is one job.
            request_id: of the request that submitted it.

        Raises:
            QueueFull: if as many jobs of the model are queued as may.
            KeyReused: if another job has the key.
        """
        now = self._clock()
        job = Job(
            id=new_id(now),
            model=model,
            priority=priority,
            submitted_at=now,
            rows=rows,
            parts=len(parts),
            part_rows=part_rows,
            request_id=request_id,
            body_sha256=_sha256(parts),
            idempotency_key=idempotency_key,
            deadline=None if deadline_seconds is None else now + deadline_seconds,
        )
        kept = self.store.add(job, parts, most=self.limits.most_queued)
        if kept.body_sha256 != job.body_sha256:
            raise KeyReused(str(idempotency_key), kept.id)
        return kept

    def get(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises:
            JobNotFound: if there is none of that id.
        """
        job = self.store.get(job_id)
        if job is None:
            raise JobNotFound(job_id, self.limits.keep_seconds)
        if job.state is State.QUEUED and job.is_late(self._clock()):
            return self.end(job, State.EXPIRED) or self.get(job_id)
        return job

    def place(self, job: Job) -> int:
        """How many jobs of its model are queued up to and with this one."""
        return 1 + self.store.count(Shelf.QUEUED, job.model, below=job.rank)

    def claim(self, models: Iterable[str], *, before: float = float("inf")) -> Job | None:
        """Take the job of ``models`` that comes next; None where there is none.

        A running job whose lease has ended comes first: its process is gone. Jobs whose deadline
        has passed, and those that ended every process that tried them, are ended on the way.

        Args:
            models: the endpoints that this process can compute.
            before: only jobs of a lower rank than that.
        """
        now = self._clock()
        for job in self._candidates(models, now, before):
            if job.is_late(now):
                self.end(job, State.EXPIRED)
            elif job.attempts >= MOST_ATTEMPTS:
                reason = f"{job.attempts} servers ended while they computed part {job.parts_done}"
                self.end(job, State.FAILED, reason)
            elif claimed := self._change(
                job,
                state=State.RUNNING,
                attempts=job.attempts + 1,
                owner=secrets.token_hex(8),
                started_at=job.started_at or now,
                lease_until=now + self.limits.lease_seconds,
            ):
                if job.started_at is None:
                    self._events.began(claimed, now - claimed.submitted_at)
                return claimed
        return None

    def begin(self, job: Job, *, digest: str, revision: int) -> Job | None:
        """Say which bundle computes a claimed job; begin it again where another one had begun."""
        if job.digest == digest:
            return job
        return self._change(
            job, digest=digest, revision=revision, parts_done=0, predicted=0, refused=0
        )

    def keep(self, job: Job, *, answer: bytes, predicted: int, refused: int) -> Job | None:
        """Keep the answer of a claimed job's next part; None if the job is not ours any more."""
        return self._change(
            job,
            answer=answer,
            attempts=0,
            parts_done=job.parts_done + 1,
            predicted=job.predicted + predicted,
            refused=job.refused + refused,
            lease_until=self._clock() + self.limits.lease_seconds,
        )

    def renew(self, job: Job) -> Job | None:
        """Say that a claimed job's process lives; None if the job is not ours any more."""
        return self._change(job, lease_until=self._clock() + self.limits.lease_seconds)

    def put_back(self, job: Job) -> Job | None:
        """Let go of a claimed job, with what is done of it: another process may go on."""
        return self._change(job, state=State.QUEUED, attempts=max(0, job.attempts - 1))

    def end(self, job: Job, state: State, reason: str | None = None) -> Job | None:
        """End a job; None if somebody else has changed it meanwhile."""
        if state is State.EXPIRED:
            reason = f"{job.parts_done} of {job.parts} parts were done at its deadline"
        ended = self._change(job, state=state, reason=reason, ended_at=self._clock())
        if ended is not None:
            self._events.ended(ended)
        return ended

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; the process that computes it stops at its next part.

        Raises:
            JobNotFound: if there is none of that id.
            JobEnded: if it has ended in another way.
        """
        while True:
            job = self.get(job_id)
            if job.state is State.CANCELLED:
                return job
            if job.state in ENDED:
                raise JobEnded(job_id, job.state)
            if cancelled := self.end(job, State.CANCELLED, "cancelled by its caller"):
                return cancelled

    def sweep(self, models: Iterable[str]) -> None:
        """Expire queued jobs that are late, and forget those that ended long ago."""
        now = self._clock()
        for model in models:
            for job in self.store.first(Shelf.QUEUED, model, self.limits.most_queued):
                if job.is_late(now):
                    self.end(job, State.EXPIRED)
            for job in self.store.first(Shelf.ENDED, model, 100):
                if job.score >= now - self.limits.keep_seconds:
                    break
                self.store.remove(job)
            self._events.queued(model, self.store.count(Shelf.QUEUED, model))

    def seconds_left(self, job: Job) -> float:
        """How long until a job's deadline: below zero when it has passed, infinity without one."""
        return job.seconds_left(self._clock())

    def _candidates(self, models: Iterable[str], now: float, before: float) -> Iterator[Job]:
        names = list(models)
        for model in names:
            for job in self.store.first(Shelf.RUNNING, model, _LOOKED_AT):
                if job.lease_until < now and job.rank < before:
                    yield job
        seen: set[tuple[str, int]] = set()
        while True:
            # Read again after every few: those looked at have been ended, or taken by others.
            queued = [j for m in names for j in self.store.first(Shelf.QUEUED, m, _LOOKED_AT)]
            fresh = [j for j in queued if j.rank < before and (j.id, j.version) not in seen]
            if not fresh:
                return
            for job in sorted(fresh, key=lambda job: (job.rank, job.id)):
                seen.add((job.id, job.version))
                yield job

    def _change(self, job: Job, *, answer: bytes | None = None, **changes: object) -> Job | None:
        changed = job.with_(**changes)
        if self.store.replace(job, changed, answer=answer):
            return changed
        # A change whose confirmation was lost, and that was tried again, has been made already.
        return changed if self.store.get(job.id) == changed else None


def _sha256(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
