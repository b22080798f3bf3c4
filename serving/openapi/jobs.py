"""Asynchronous jobs: submit, look, list, fetch the result, cancel."""

from typing import Any

from serving.jobs.job import Priority, State
from serving.jobs.results import ARROW, JSON_LINES
from serving.openapi.describe import array, content, obj, operation, parameter, ref

_STRING = {"type": "string"}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_ID = parameter("job_id", "path", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "From submit")


def schemas() -> dict[str, Any]:
    """What a job is, as its callers see it."""
    job = {
        "id": {"type": "string"},
        "model": _STRING,
        "state": {"type": "string", "enum": [state.value for state in State]},
        "priority": {"type": "string", "enum": [priority.value for priority in Priority]},
        "rows": _COUNT,
        "predicted": _COUNT,
        "refused": _COUNT,
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "reason": {"type": ["string", "null"]},
        "submitted_at": _TIME,
        "deadline": _TIME,
        "started_at": _TIME,
        "ended_at": _TIME,
        "result": {"type": ["string", "null"], "description": "where its result is"},
        "place": {**_COUNT, "description": "its place in the queue; 1: it is the next"},
    }
    return {
        "Job": obj(job, optional=("place",)),
        "JobList": obj({"jobs": array(ref("Job")), "next": {"type": ["string", "null"]}}),
    }


def paths() -> dict[str, Any]:
    """The calls about jobs."""
    one, job = "/api/v1/jobs/{job_id}", content(ref("Job"))
    failures = (404, 500, 503)
    results = {JSON_LINES: {"schema": _STRING}, ARROW: {"schema": _STRING}}
    return {
        "/api/v1/jobs": {
            "post": operation(
                "submit_job",
                "Compute rows later",
                tag="jobs",
                status=202,
                good=job,
                failures=(400, 404, 408, 413, 415, 422, 500, 503),
                body=content(ref("InferRequest")),
                parameters=_OPTIONS,
            ),
            "get": operation(
                "list_jobs",
                "Jobs, the newest first",
                tag="jobs",
                good=content(ref("JobList")),
                failures=(422, 500, 503),
                parameters=_PAGE,
            ),
        },
        one: {
            "get": operation(
                "job", "How far a job is", tag="jobs", good=job, failures=failures, parameters=[_ID]
            ),
            "delete": operation(
                "cancel_job",
                "Cancel a job",
                tag="jobs",
                good=job,
                failures=(*failures, 409),
                parameters=[_ID],
            ),
        },
        f"{one}/result": {
            "get": operation(
                "job_result",
                "Every row's answer",
                tag="jobs",
                good=results,
                failures=(*failures, 406, 409),
                parameters=[_ID],
            )
        },
    }


_OPTIONS = [
    parameter(
        "priority", "query", {"type": "string", "enum": [p.value for p in Priority]}, "Its class"
    ),
    parameter(
        "deadline_seconds", "query", {"type": "number", "minimum": 0.001, "maximum": 2_592_000},
        "From now; what is not computed by then is dropped",
    ),
    parameter(
        "Idempotency-Key", "header",
        {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"},
        "The same key and rows give the same job",
    ),
]  # fmt: skip
_PAGE = [
    parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": 500}, "Jobs on a page"
    ),
    parameter("before", "query", _STRING, "Id of the last job of the page before"),
]
