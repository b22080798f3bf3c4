"""The slow side of a connection: one request at a time, given to the web framework by uvicorn.

uvicorn's ``HttpToolsProtocol`` makes the ASGI scope, the task and the response of it. Here it gets
a parser of its own for each request and no byte beyond it, so that nothing of one request is left
for the next, and no second request is begun before the first is answered.
"""

import asyncio
import re

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.http.heads import RequestHead

_UPGRADE = re.compile(rb"(?im)^upgrade:[^\r\n]*\r\n")


class FrameworkConnection(HttpToolsProtocol):
    """A connection whose requests the web framework answers; whoever extends it frames them."""

    missing = 0
    """How many bytes of the body have not arrived, where the head said how many there are."""
    received = 0
    """How many bytes of the request have arrived."""
    whole = True
    """Whether the framework's request has arrived to its end."""
    _chunked = _begun = False
    cycle: RequestResponseCycle

    def begin_framework(self, head: RequestHead, data: bytes, end: int) -> bytes:
        """Give the request at the front of ``data`` to the framework; return what is behind it.

        Args:
            head: what its head says.
            data: head, and what has come of the body and of further requests.
            end: where the head ends.

        Raises:
            httptools.HttpParserError: if its chunks are malformed.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._begun, self.whole, self.received = False, False, 0
        if "upgrade" in head.headers:
            # This server speaks nothing else, and then the header means nothing; to the parser it
            # would mean that no body comes.
            raw = _UPGRADE.sub(b"", data[:end])
            data, end = raw + data[end:], len(raw)
        self._chunked = head.length is None
        self.missing = end + (head.length or 0)
        return self.feed_framework(data)

    def feed_framework(self, data: bytes) -> bytes:
        """Give further bytes of the request to the framework; return those that are not its own.

        Raises:
            httptools.HttpParserError: if its chunks are malformed.
        """
        own, rest = (data, b"") if self._chunked else (data[: self.missing], data[self.missing :])
        self.missing = max(0, self.missing - len(own))
        self.received += len(own)
        try:
            self.parser.feed_data(own)
        except httptools.HttpParserError:
            if not self.whole:
                raise
            # Something came right behind the last chunk. Where it begins the parser does not say:
            # this request is answered and the connection closed, and its client asks again.
            self.cycle.keep_alive = False
        return rest

    @property
    def response_started(self) -> bool:
        """Whether the framework has begun to answer."""
        return self.cycle is not None and self.cycle.response_started

    def on_message_begin(self) -> None:  # noqa: D102
        if self._begun:
            raise asyncio.InvalidStateError("a second request behind the last chunk")
        self._begun = True
        super().on_message_begin()

    def on_message_complete(self) -> None:  # noqa: D102
        self.whole = True
        super().on_message_complete()
