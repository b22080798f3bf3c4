"""One inference request through the web framework: the same codecs as the hot lane, awaited.

Here come the requests that the hot lane leaves: bodies in chunks, clients that wait for "100
Continue", and tests without a socket. It also has what every other route needs: a body within its
limits, and JSON with a request id.
"""

import asyncio
import time
from typing import Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from headrace.errors import HeadraceError
from serving.errors import BodyTooLarge, EncodingRefused, PlaneFailed, http_status
from serving.http.caller import Networks, caller
from serving.http.codec import Codec, new_request_id, sane_request_id
from serving.http.heads import codec_head
from serving.http.lane import Watcher
from serving.http.responses import error_headers, headers_of
from serving.query import Answer, Query
from serving.settings import ServerSettings

REQUEST_ID = "X-Request-Id"
_INLINE_BYTES = 32_768  # as in the hot lane


class Plane(Protocol):
    """Who computes; ``serving.dataplane.DataPlane`` is the real one."""

    async def infer(self, query: Query) -> Answer:
        """Return the answer to ``query``."""


class Exchange:
    """Answers inference requests that come through the web framework."""

    def __init__(
        self, plane: Plane, settings: ServerSettings, watcher: Watcher, trusted: Networks
    ) -> None:
        self._plane, self._watcher, self._trusted = plane, watcher, trusted
        self._body_bytes = settings.max_body_bytes
        self._binary_bytes = max(settings.max_binary_bytes, settings.max_body_bytes)

    async def answer(self, request: Request, codec: Codec) -> Response:
        """Answer ``request`` in the words of ``codec``."""
        name = request_id(request)
        try:
            answer = await self._infer(request, codec)
            name = answer.query.request_id
            lines, content = codec.encode(answer)
        except HeadraceError as error:
            return self._failed(request, codec, name, error)
        except ClientDisconnect:
            raise
        except Exception as fault:  # noqa: BLE001  (a fault of ours costs its request a status 500)
            failed = PlaneFailed("answer the request")
            failed.__cause__ = fault
            return self._failed(request, codec, name, failed)
        seconds = time.perf_counter() - answer.query.received
        self._watcher.answered(codec.edge, seconds, self._caller(request), name)
        return Response(content, headers=_named(headers_of(lines), name))

    async def _infer(self, request: Request, codec: Codec) -> Answer:
        head = codec_head(request.url.path, request.headers, **request.path_params)
        limit = self._body_bytes if head.header_length is None else self._binary_bytes
        body = await read_body(request, limit=limit)
        if len(body) <= _INLINE_BYTES:
            query = codec.decode(body, head)
        else:
            query = await asyncio.to_thread(codec.decode, body, head)
        return await self._plane.infer(query)

    def _failed(self, request: Request, codec: Codec, name: str, error: HeadraceError) -> Response:
        status = http_status(error)
        self._watcher.refused(codec.edge, status, self._caller(request), name, error)
        headers = _named(error_headers(error), name)
        if status in (408, 413):
            headers["connection"] = "close"  # the rest of the body is not read
        return Response(codec.encode_error(error, name), status, headers)

    def _caller(self, request: Request) -> str:
        peer = request.client.host if request.client else "?"
        return caller(peer, request.headers.get("x-forwarded-for"), self._trusted)


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the body, giving up as soon as it is known to be longer than ``limit`` bytes.

    How long it may take is the connection's to know: ``serving/http/limits.py``.

    Raises:
        BodyTooLarge: if it is.
        EncodingRefused: if it is compressed.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise EncodingRefused(encoding)
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
    return sane_request_id(request.headers.get(REQUEST_ID)) or new_request_id()


def json_response(content: bytes, *, status: int = 200, request_id: str) -> Response:
    """A JSON response that carries its request id, where that may stand in a header."""
    headers = _named({}, request_id)
    if status in (408, 413):
        # A part of the body is unread: where the next request begins is not known.
        headers["Connection"] = "close"
    return Response(content, status, headers, media_type="application/json")


def error_response(error: HeadraceError, request: Request) -> Response:
    """What is wrong with a request, in the words of every route that has no codec."""
    name = request_id(request)
    content = msgspec.json.encode({"error": str(error)})
    return Response(content, http_status(error), _named(error_headers(error), name))


def _named(headers: dict[str, str], request_id: str) -> dict[str, str]:
    return headers | ({REQUEST_ID: request_id} if sane_request_id(request_id) else {})
