"""What turns the bytes of one protocol into a query, and an answer into bytes.

A codec knows no sockets and no framework: the hot lane (``serving/http/protocol.py``) and the
Starlette lane (``serving/exchange.py``) call the same one, so that both say the same.
"""

import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from serving.query import Answer, Query

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True, frozen=True)
class Head:
    """What a codec may want to know of a request besides its body.

    The head of a keep-alive client is kept and shared by its requests, so nothing in it is of one
    request alone. Heads with a ``request_id`` or a ``traceparent`` are not kept.
    """

    path: str
    name: str | None = None
    """The model's name in the path."""
    version: str | None = None
    """The model's version in the path."""
    request_id: str | None = None
    """The caller's ``X-Request-Id``, where it is short and plain."""
    content_type: str = ""
    accept: str = ""
    header_length: int | None = None
    """``Inference-Header-Content-Length``: bytes of JSON before the binary tensors."""
    timeout: float | None = None
    """``X-Request-Timeout``: seconds after which the caller does not want the answer any more."""
    traceparent: str | None = None
    """Where the request belongs in a trace: https://www.w3.org/TR/trace-context."""


class Codec(Protocol):
    """One protocol's bytes. Pure functions: safe to call from several threads."""

    edge: str
    """The name of the protocol in metrics and in the inference log."""

    def decode(self, body: bytes, head: Head) -> "Query":
        """Return what ``body`` asks.

        The query's id is the one in the body, else ``head.request_id``, else ``new_request_id()``.

        Raises:
            RequestRefused: naming what is wrong with it.
        """

    def encode(self, answer: "Answer") -> tuple[bytes, bytes]:
        """Return header lines, each ended by CR LF, and the body.

        Content-Length, the date and the request id are the lane's to write.
        """

    def encode_error(self, error: HeadraceError, request_id: str) -> bytes:
        """Return the body that tells ``error``, as JSON."""


_prefix = os.urandom(6).hex()
_count = itertools.count(1).__next__


def new_request_id() -> str:
    """Return an id that no other request has: random for the process, then counted.

    A tenth of the cost of a UUID, and as unique: 48 random bits a process, and its own count.
    """
    return f"{_prefix}{_count():x}"


def sane_request_id(given: str | None) -> str | None:
    """Return ``given`` where it may stand in a header, a log line and a table; else None."""
    if not given or (given.isalnum() and given.isascii() and len(given) <= 128):
        return given or None
    return given if _SANE_ID.fullmatch(given) else None
