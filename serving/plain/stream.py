"""``POST /api/v1/infer/stream``: many rows, answered as they are computed.

Server-sent events, or lines of JSON where the caller accepts ``application/x-ndjson``. Each event
tells some rows and stands for itself; its id is how many rows were answered by then, so a caller
whose connection broke sends the same body with ``Last-Event-ID`` and goes on from there. The last
event is ``end``; where rows cannot be answered any more, it is ``error``. Where the caller leaves,
what waits is dropped and nothing further is computed.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from headrace.errors import HeadraceError
from serving.plain.part import Part, Plane, answer_part
from serving.plain.response import Wording, error_body

if TYPE_CHECKING:
    from serving.http.codec import Head
    from serving.plain.asked import Asked

EDGE = "stream"
EVENTS, LINES = "text/event-stream", "application/x-ndjson"


async def stream(
    plane: Plane, wording: Wording, asked: "Asked", head: "Head", *, chunk_rows: int, begin: int
) -> AsyncIterator[tuple[str, int, bytes]]:
    """Yield events: their name, how many rows are answered by then, and their JSON.

    Args:
        plane: who computes.
        wording: of the model that answers.
        asked: the rows.
        head: of the request; with a request id.
        chunk_rows: rows an event.
        begin: how many rows the caller has already.

    Raises:
        HeadraceError: if not even the first rows can be answered.
    """
    rows, failed, degraded = len(asked.rows), 0, False
    for first in range(begin, rows, chunk_rows):
        span = range(first, min(first + chunk_rows, rows))
        try:
            part = await answer_part(plane, wording, asked, span, edge=EDGE, head=head)
        except HeadraceError as error:
            if first == begin:  # nothing is sent yet: the status can still tell
                raise
            yield "error", first, error_body(error, head.request_id or "")
            return
        failed, degraded = failed + part.failed, degraded or part.degraded
        yield "predictions", span.stop, _chunk(wording, part, head, first)
    end = msgspec.json.encode({"rows": rows - begin, "failed": failed})
    yield "end", rows, wording.opening(head.request_id or "", degraded=degraded) + b"," + end[1:]


def as_event(name: str, answered: int, content: bytes) -> bytes:
    """An event as it is sent."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (answered, name.encode(), content)


def as_line(name: str, answered: int, content: bytes) -> bytes:
    """The same as a line of JSON."""
    return b'{"event":"%b","id":%d,%b\n' % (name.encode(), answered, content[1:])


def _chunk(wording: Wording, part: Part, head: "Head", first: int) -> bytes:
    opening = wording.opening(head.request_id or "", degraded=part.degraded)
    return b'%b,"first_row":%d,"predictions":[%b]}' % (opening, first, b",".join(part.items))
