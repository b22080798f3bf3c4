"""The routes of the plain API that are not hot: batch, stream, and what the model is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.errors import HeadraceError
from serving.errors import FieldsRefused, Problem, http_status
from serving.exchange import json_response, read_body, request_id
from serving.fields import show
from serving.http.heads import codec_head
from serving.http.responses import error_headers
from serving.plain.codec import PlainCodec
from serving.plain.info import model_info
from serving.plain.part import Plane, answer_part
from serving.plain.response import Wording, error_body
from serving.plain.stream import EVENTS, LINES, as_event, as_line, stream

if TYPE_CHECKING:
    from serving.http.codec import Head
    from serving.plain.asked import Asked
    from serving.repository import ModelRepository
    from serving.settings import ServerSettings

_INLINE_BYTES = 32_768  # decoding more holds the event loop for milliseconds
_NOT_KEPT = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nor held back by nginx
_Door = Callable[[Request], Awaitable[Response]]


def routes(plane: Plane, repository: "ModelRepository", settings: "ServerSettings") -> list[Route]:
    """Return the routes, for the web framework."""
    doors = _Doors(plane, repository, settings, PlainCodec(repository, settings))
    return [
        Route("/api/v1/infer/batch", _told(doors.batch), methods=["POST"]),
        Route("/api/v1/infer/stream", _told(doors.stream), methods=["POST"]),
        Route("/api/v1/model/info", _told(doors.info)),
    ]


@dataclass(frozen=True)
class _Doors:
    plane: Plane
    repository: "ModelRepository"
    settings: "ServerSettings"
    codec: PlainCodec

    async def batch(self, request: Request) -> Response:
        asked, head, wording = await self._asked(request)
        span = range(len(asked.rows))
        part = await answer_part(self.plane, wording, asked, span, edge="batch", head=head)
        name = head.request_id or ""
        content = b'%b,"failed":%d,"predictions":[%b]}' % (
            wording.opening(name, degraded=part.degraded),
            part.failed,
            b",".join(part.items),
        )
        return json_response(content, request_id=name)

    async def stream(self, request: Request) -> Response:
        chunk_rows = _whole(request.query_params.get("chunk_rows"), "chunk_rows", low=1)
        begin = _whole(request.headers.get("Last-Event-ID"), "Last-Event-ID", low=0)
        asked, head, wording = await self._asked(request)
        events = stream(
            self.plane,
            wording,
            asked,
            head,
            chunk_rows=chunk_rows or self.settings.stream_rows,
            begin=min(begin or 0, len(asked.rows)),
        )
        first = await anext(events)  # its errors still have a status
        kind = LINES if LINES in head.accept else EVENTS
        write = as_line if kind == LINES else as_event

        async def written() -> AsyncIterator[bytes]:
            yield write(*first)
            async for event in events:
                yield write(*event)

        headers = _NOT_KEPT | {"X-Request-Id": head.request_id or ""}
        return StreamingResponse(written(), headers=headers, media_type=kind)

    async def info(self, request: Request) -> Response:
        model = self.repository.served(request.query_params.get("model"))
        content = await asyncio.to_thread(lambda: msgspec.json.encode(model_info(model)))
        return json_response(content, request_id=request_id(request))

    async def _asked(self, request: Request) -> tuple["Asked", "Head", Wording]:
        head = codec_head(request.url.path, request.headers)
        body = await read_body(request, limit=self.settings.max_body_bytes)
        if len(body) <= _INLINE_BYTES:
            asked = self.codec.read(body, partial=True)
        else:
            asked = await asyncio.to_thread(self.codec.read, body, partial=True)
        named = replace(head, request_id=head.request_id or request_id(request))
        return asked, named, self.codec.wording(asked.model)


def _told(door: _Door) -> _Door:
    """The door, with errors in the words of the plain API."""

    async def answer(request: Request) -> Response:
        try:
            return await door(request)
        except HeadraceError as error:
            name, status = request_id(request), http_status(error)
            headers = error_headers(error) | {"X-Request-Id": name}
            if status in (408, 413):
                headers["Connection"] = "close"  # the rest of the body is not read
            return Response(error_body(error, name), status, headers)

    return answer


def _whole(text: str | None, name: str, *, low: int) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= low:
        return int(text)
    remedy = f"write a whole number from {low}"
    message = f"{name} = {show(text)} is not one; {remedy}"
    raise FieldsRefused([Problem(message, field=name, value=show(text), remedy=remedy)])
