"""One HTTP request from its body to its answer, the same for every edge.

Reads the body within its limits, decodes it, lets the edge infer, counts, logs, and turns errors
into the edge's words. Small bodies are answered on the event loop, where a hop to a thread would
cost more than the answer; large ones on a thread, so that the loop stays free.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headrace.errors import HeadraceError
from monitoring.inference_log import Inference, InferenceLog
from serving import json_body
from serving.dataplane import Answer, ServedModel
from serving.endpoint import Endpoint
from serving.errors import BodyRefused, BodyTooLarge, BodyTooSlow, http_status
from serving.metrics import Metrics
from serving.settings import ServerSettings

REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_INLINE_BYTES = 32_768  # some hundred rows: about a millisecond of work
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edge:
    """One protocol's way to ask and to answer."""

    name: str
    infer: Callable[..., Answer]
    """``infer(model, document, max_rows=...)``."""
    render: Callable[[Answer, str], dict[str, Any]]
    """The body of an answer, given the request id."""
    render_error: Callable[[Exception, str], dict[str, Any]]
    """The body of an error, given the request id."""
    request_id_of: Callable[[Any, str], str]
    """The request id in a body, or the one given."""


@dataclass
class _Arrival:
    edge: Edge
    request_id: str  # the header's, until the body is read and says another
    at: datetime
    clock: float

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.clock


class Exchange:
    """Answers inference requests for one endpoint."""

    def __init__(
        self, endpoint: Endpoint, *, settings: ServerSettings, metrics: Metrics, log: InferenceLog
    ) -> None:
        self._endpoint, self._settings = endpoint, settings
        self._metrics, self._log = metrics, log

    async def answer(
        self, request: Request, edge: Edge, check: Callable[[ServedModel], None] | None = None
    ) -> Response:
        """Answer ``request``; ``check`` may refuse it before its body is read."""
        arrival = _Arrival(edge, request_id(request), datetime.now(UTC), time.perf_counter())
        model = self._endpoint.current
        try:
            if check:
                check(model)
            body = await self._body(request)
            if len(body) <= _INLINE_BYTES:
                content = self._infer(model, body, arrival)
            else:
                content = await asyncio.to_thread(self._infer, model, body, arrival)
            status = 200
        except HeadraceError as error:
            content, status = self._failed(error, arrival), http_status(error)
        self._metrics.count(edge.name, status, arrival.seconds)
        return json_response(content, status=status, request_id=arrival.request_id)

    def _infer(self, model: ServedModel, body: bytes, arrival: _Arrival) -> bytes:
        edge = arrival.edge
        document = json_body.decode(body)
        arrival.request_id = edge.request_id_of(document, arrival.request_id)
        answer = edge.infer(model, document, max_rows=self._settings.max_rows)
        self._metrics.count_answer(edge.name, answer)
        self._log.record(_inference(answer, arrival))
        return json_body.encode(edge.render(answer, arrival.request_id))

    def _failed(self, error: HeadraceError, arrival: _Arrival) -> bytes:
        if http_status(error) >= 500:
            _logger.error("request_id=%s edge=%s: %s", arrival.request_id, arrival.edge.name, error)
        return json_body.encode(arrival.edge.render_error(error, arrival.request_id))

    async def _body(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                return await read_body(request, limit=self._settings.max_body_bytes)
        except TimeoutError as error:
            raise BodyTooSlow(self._settings.body_seconds) from error


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the body, giving up as soon as it is known to be longer than ``limit`` bytes.

    Raises:
        BodyTooLarge: if it is.
        BodyRefused: if it is compressed or holds the binary extension of the V2 protocol.
    """
    for header in ("Content-Encoding", "Inference-Header-Content-Length"):
        if header in request.headers:
            raise BodyRefused(f"{header} is not supported; send plain JSON without that header")
    said = request.headers.get("Content-Length", "0")
    if said.isdigit() and int(said) > limit:
        raise BodyTooLarge(f"a body of {int(said):,} bytes", limit, "bytes")
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge("the body", limit, "bytes")
    return b"".join(chunks)


def request_id(request: Request) -> str:
    """The caller's ``X-Request-Id`` where it is short and plain, else a new one."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def json_response(content: bytes, *, status: int = 200, request_id: str) -> Response:
    """A JSON response that carries its request id, where that may stand in a header."""
    # 408 and 413 leave a part of the body unread: the connection cannot be used again.
    close = {"Connection": "close"} if status in (408, 413) else {}
    named = {REQUEST_ID: request_id} if _SANE_ID.fullmatch(request_id) else {}
    headers = {**named, **close}
    return Response(content, status, headers, media_type="application/json")


def _inference(answer: Answer, arrival: _Arrival) -> Inference:
    model, rows = answer.model, answer.rows
    return Inference(
        request_id=arrival.request_id,
        received_at=arrival.at,
        edge=arrival.edge.name,
        digest=model.predictor.digest,
        revision=model.release.revision,
        plan=model.predictor.plan,
        matrix=answer.matrix,
        predictions=answer.predictions,
        latency_seconds=arrival.seconds,
        keys=rows.keys if rows else {},
        request=rows.request if rows else {},
        event_times=answer.event_times,
        statuses=answer.statuses,
    )
