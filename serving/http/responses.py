"""A response as bytes, with one status line and date made a second and not a request."""

import http
from email.utils import formatdate

from headrace.errors import HeadraceError
from serving.errors import http_status
from serving.http.codec import sane_request_id

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}
_CLOSE = b"connection: close\r\n"


def opening(status: int, date: bytes, *, close: bool = False) -> bytes:
    """Return the status line and the lines that every response has."""
    return _STATUS_LINES[status] + b"date: " + date + b"\r\n" + (_CLOSE if close else b"")


def date_now() -> bytes:
    """Return the value of a Date header."""
    return formatdate(usegmt=True).encode()


def response(opening: bytes, lines: bytes, body: bytes, request_id: str) -> bytes:
    """Return a whole response.

    Args:
        opening: from ``opening``.
        lines: further header lines, each ended by CR LF.
        body: what they are about.
        request_id: said in a header where it may stand in one.
    """
    if sane_request_id(request_id):
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b" % (
            opening,
            len(body),
            request_id.encode(),
            lines,
            body,
        )
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (opening, len(body), lines, body)


def error_headers(error: HeadraceError) -> dict[str, str]:
    """Return the headers that tell ``error``."""
    status = http_status(error)
    headers = {"content-type": "application/json"}
    if status == 415:
        headers["accept-encoding"] = "identity"
    if status == 503:
        headers["retry-after"] = str(getattr(error, "retry_after_seconds", 1))
    return headers


def error_lines(error: HeadraceError) -> bytes:
    """Return the same as header lines."""
    lines = [f"{name}: {value}\r\n" for name, value in error_headers(error).items()]
    return "".join(lines).encode("latin-1")


def headers_of(lines: bytes) -> dict[str, str]:
    """Return header lines, each ended by CR LF, as a mapping."""
    pairs = [line.split(": ", 1) for line in lines.decode("latin-1").split("\r\n") if line]
    return dict(pairs)
