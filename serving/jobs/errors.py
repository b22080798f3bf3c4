"""What can go wrong with jobs.

ServingError
├── JobStoreFailed            jobs cannot be read or written now
├── QueueFull                 as many jobs wait as may
└── RequestRefused
    ├── JobNotFound           no job of that id, or not any more
    ├── JobNotDone            a result was asked for that is not there
    ├── JobEnded              a job cannot be cancelled any more
    ├── KeyReused             one idempotency key for two different jobs
    └── FormatNotOffered      a result was asked for in a format that is not offered
"""

from collections.abc import Sequence

from serving.errors import HTTP_STATUS, RequestRefused, ServingError


class JobStoreFailed(ServingError):
    """Jobs cannot be read or written now."""

    def __init__(self, action: str, place: str, reason: object) -> None:
        self.action, self.place, self.reason = action, place, reason
        super().__init__(
            f"cannot {action} jobs at {place}: {reason}. Set HEADRACE_SERVER_JOBS_STORE to a file "
            "or a Redis that this server can write, or to 'off'."
        )


class QueueFull(ServingError):
    """As many jobs of a model wait as may."""

    def __init__(self, model: str, queued: int) -> None:
        self.model, self.queued, self.retry_after_seconds = model, queued, 5
        super().__init__(
            f"{queued:,} jobs of {model!r} are queued, which is all that may: try again later, "
            "or raise HEADRACE_SERVER_JOBS_MAX_QUEUED."
        )


class JobNotFound(RequestRefused):
    """No job of that id, or not any more."""

    def __init__(self, job_id: str, keep_seconds: float) -> None:
        self.job_id = job_id
        super().__init__(
            f"there is no job {job_id[:64]!r}; a job is forgotten {keep_seconds:,.0f} s after it "
            "ended."
        )


class JobNotDone(RequestRefused):
    """A result was asked for that is not there."""

    def __init__(self, job_id: str, state: str, reason: str | None) -> None:
        self.job_id, self.state = job_id, state
        why = f" ({reason})" if reason else ""
        remedy = (
            f"ask GET /api/v1/jobs/{job_id} until it is done"
            if state in ("queued", "running")
            else "submit its rows again"
        )
        super().__init__(f"job {job_id} is {state}{why} and has no result: {remedy}.")


class JobEnded(RequestRefused):
    """A job cannot be cancelled any more."""

    def __init__(self, job_id: str, state: str) -> None:
        self.job_id, self.state = job_id, state
        super().__init__(f"job {job_id} is {state}: only one that waits or runs can be cancelled.")


class KeyReused(RequestRefused):
    """One idempotency key for two different jobs."""

    def __init__(self, key: str, job_id: str) -> None:
        self.key, self.job_id = key, job_id
        super().__init__(
            f"Idempotency-Key {key!r} belongs to job {job_id}, which was submitted with other "
            "rows: choose a new key for a new job."
        )


class FormatNotOffered(RequestRefused):
    """A result was asked for in a format that is not offered."""

    def __init__(self, accept: str, offered: Sequence[str]) -> None:
        self.accept, self.offered = accept, tuple(offered)
        super().__init__(
            f"Accept: {accept[:100]} names no format of a result; the formats are "
            f"{', '.join(self.offered)}."
        )


HTTP_STATUS.update(
    {
        JobNotFound: 404,
        FormatNotOffered: 406,
        JobNotDone: 409,
        JobEnded: 409,
        KeyReused: 422,
        QueueFull: 503,
        JobStoreFailed: 503,
    }
)
