"""The calls under ``/api/v1/jobs``: submit, look, list, fetch the result, cancel."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serving import json_body
from serving.errors import FieldsRefused, Problem
from serving.exchange import json_response, read_body, request_id
from serving.jobs import results
from serving.jobs.body import cut
from serving.jobs.errors import FormatNotOffered, JobNotDone
from serving.jobs.job import Job, Priority, State
from serving.jobs.queue import JobQueue
from serving.jobs.runner import PATH, JobRunner
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.repository import ModelRepository

_MOST_LISTED = 500
_KEY = re.compile(r"[!-~]{1,256}")
_LONGEST_DEADLINE = 30 * 86_400.0


class JobRoutes:
    """What callers may do with jobs."""

    def __init__(
        self,
        queue: JobQueue,
        runner: JobRunner,
        models: "ModelRepository",
        settings: ServerSettings,
    ) -> None:
        self._queue, self._runner, self._models = queue, runner, models
        self._settings = settings

    def routes(self) -> list[Route]:
        """The routes, for the application."""
        one = f"{PATH}/{{job_id}}"
        return [
            Route(PATH, self.submit, methods=["POST"]),
            Route(PATH, self.list_jobs, methods=["GET"]),
            Route(one, self.look, methods=["GET"]),
            Route(one, self.cancel, methods=["DELETE"]),
            Route(f"{one}/result", self.result, methods=["GET"]),
        ]

    async def submit(self, request: Request) -> Response:
        """Take in a body of ``POST /api/v1/infer``, to be computed later."""
        settings, options = self._settings, _Options(request)
        body = await read_body(request, limit=settings.jobs_max_body_bytes)
        part_rows, most_rows = settings.jobs_part_rows, settings.jobs_max_rows
        found = await asyncio.to_thread(
            cut, body, self._models, part_rows=part_rows, most_rows=most_rows
        )
        job = await asyncio.to_thread(
            self._queue.submit,
            self._models.served(found.model).release.endpoint,
            found.parts,
            rows=found.rows,
            part_rows=part_rows,
            priority=options.priority,
            deadline_seconds=options.deadline_seconds,
            idempotency_key=options.idempotency_key,
            request_id=request_id(request),
        )
        self._runner.wake()
        response = await self._told(request, job, status=202)
        response.headers["Location"] = f"{PATH}/{job.id}"
        return response

    async def look(self, request: Request) -> Response:
        """How far a job is."""
        return await self._told(request, await self._job(request))

    async def cancel(self, request: Request) -> Response:
        """Cancel a job that has not ended."""
        job_id = request.path_params["job_id"]
        return await self._told(request, await asyncio.to_thread(self._queue.cancel, job_id))

    async def list_jobs(self, request: Request) -> Response:
        """A page of jobs, from the newest on."""
        count = int(_number(request, "limit", default=50, least=1, most=_MOST_LISTED, whole=True))
        before = request.query_params.get("before")
        found = await asyncio.to_thread(self._queue.store.page, count + 1, before=before)
        shown = found[:count]
        more = len(found) > len(shown)
        following = f"{PATH}?limit={count}&before={shown[-1].id}" if more else None
        content = {"jobs": [document(job) for job in shown], "next": following}
        return json_response(json_body.encode(content), request_id=request_id(request))

    async def result(self, request: Request) -> Response:
        """Every row's answer: JSON lines, or Arrow where that is what the caller accepts."""
        kind = _accepted(request)
        job = await self._job(request)
        if job.state is not State.DONE:
            raise JobNotDone(job.id, job.state, job.reason)
        pieces = await asyncio.to_thread(self._pieces, job, kind)
        told = {"X-Model-Digest": job.digest or "", "X-Request-Id": request_id(request)}
        return StreamingResponse(pieces, media_type=kind, headers=told)

    def _pieces(self, job: Job, kind: str) -> Iterator[bytes]:
        answers = self._queue.store.answers
        if kind == results.JSON_LINES:
            return results.json_lines(answers(job))
        views = next((found for part in answers(job) if (found := results.views_of(part))), [])
        return results.arrow_stream(job, views, answers(job))

    async def _job(self, request: Request) -> Job:
        return await asyncio.to_thread(self._queue.get, request.path_params["job_id"])

    async def _told(self, request: Request, job: Job, *, status: int = 200) -> Response:
        content = document(job, keep_seconds=self._queue.limits.keep_seconds)
        if job.state is State.QUEUED:
            content["place"] = await asyncio.to_thread(self._queue.place, job)
        return json_response(
            json_body.encode(content), status=status, request_id=request_id(request)
        )


def document(job: Job, *, keep_seconds: float | None = None) -> dict[str, Any]:
    """What callers see of a job."""
    ended = job.ended_at is not None
    kept_until = job.ended_at + keep_seconds if job.ended_at and keep_seconds else None
    rows_done = min(job.parts_done * job.part_rows, job.rows)
    return {
        "id": job.id,
        "model": job.model,
        "state": job.state,
        "priority": job.priority,
        "rows": job.rows,
        "predicted": job.predicted,
        "refused": job.refused,
        "progress": round(rows_done / job.rows, 4),
        "digest": job.digest,
        "revision": job.revision,
        "reason": job.reason,
        "request_id": job.request_id,
        "submitted_at": _moment(job.submitted_at),
        "deadline": _moment(job.deadline),
        "started_at": _moment(job.started_at),
        "ended_at": _moment(job.ended_at),
        "kept_until": _moment(kept_until),
        "result": f"{PATH}/{job.id}/result" if ended and job.state is State.DONE else None,
    }


class _Options:
    """What a caller may say of a job besides its rows."""

    def __init__(self, request: Request) -> None:
        query = request.query_params
        for name in query:
            if name not in ("priority", "deadline_seconds"):
                raise _refused(name, "is unknown; write priority or deadline_seconds")
        given = query.get("priority", Priority.NORMAL)
        if given not in list(Priority):
            raise _refused("priority", f"= {given[:60]!r} is none of urgent, normal and low")
        self.priority = Priority(given)
        self.deadline_seconds = (
            _number(request, "deadline_seconds", default=0.0, least=0.001, most=_LONGEST_DEADLINE)
            if "deadline_seconds" in query
            else None
        )
        self.idempotency_key = request.headers.get("Idempotency-Key")
        if self.idempotency_key is not None and not _KEY.fullmatch(self.idempotency_key):
            raise _refused(
                "Idempotency-Key", "is not 1 to 256 printable ASCII characters, no space"
            )


def _number(
    request: Request, name: str, *, default: float, least: float, most: float, whole: bool = False
) -> float:
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        number = int(given) if whole else float(given)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        kind = "whole number" if whole else "number"
        raise _refused(name, f"= {given[:60]!r} is no {kind} from {least:g} to {most:g}")
    return number


def _accepted(request: Request) -> str:
    """The format of a result: the first one of the caller's that is offered."""
    given = request.headers.get("Accept", "*/*")
    for part in given.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in ("*/*", "application/*", "application/json", results.JSON_LINES):
            return results.JSON_LINES
        if kind == results.ARROW:
            return results.ARROW
    raise FormatNotOffered(given, (results.JSON_LINES, results.ARROW))


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _refused(name: str, what: str) -> FieldsRefused:
    return FieldsRefused([Problem(f"{name} {what}", field=name)])
