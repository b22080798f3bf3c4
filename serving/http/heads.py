"""From the head of a request, the bytes up to its blank line, to what they mean.

llhttp (through httptools) does the parsing, strictly. What it lets pass and RFC 9112 does not, or
what could be read in two ways by a proxy in front, is refused here: no host or two, a version
other than 1.0 and 1.1, a length beside chunks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httptools

from serving.errors import BodyTooLarge, HeadRefused, HeadTooLarge
from serving.http.codec import Codec, Head, sane_request_id
from serving.http.limits import Limits

_V2 = re.compile(r"/v2/models/([^/%?]+)(?:/versions/([^/%?]+))?/infer")
_MOST_KEPT, _LONGEST_KEPT = 1024, 4096


@dataclass(slots=True, frozen=True)
class RequestHead:
    """A head as it was sent."""

    method: str
    target: str
    """Path and query, as they stand in the request line."""
    headers: Mapping[str, str]
    """By name in lower case; the first of each name."""
    keep_alive: bool

    @property
    def length(self) -> int | None:
        """How many bytes follow; None where they come in chunks."""
        if "transfer-encoding" in self.headers:
            return None
        return int(self.headers.get("content-length", 0))


@dataclass(slots=True, frozen=True)
class HotHead:
    """The head of a request that is answered before ASGI."""

    codec: Codec
    head: Head
    length: int
    """How many bytes follow."""
    keep_alive: bool
    forwarded_for: str | None = None


class Heads:
    """Reads heads, and keeps those of hot requests: the next one of equal bytes costs a look-up."""

    def __init__(
        self, paths: Mapping[str, Codec], v2: Codec | None = None, *, limits: Limits
    ) -> None:
        """Know the hot routes.

        Args:
            paths: the codec of each path that is hot.
            v2: the codec of ``/v2/models/{name}/infer`` and of its versions.
            limits: how large head and body may be.
        """
        self._paths, self._v2, self._limits = paths, v2, limits
        self._kept: dict[bytes, HotHead] = {}
        self.kept = self._kept.get
        """The hot request of a head that was seen before, by its bytes; None for a new one."""

    @property
    def kept_count(self) -> int:
        """How many heads are kept."""
        return len(self._kept)

    def read(self, raw: bytes) -> tuple[RequestHead, HotHead | None]:
        """Return what a head says, and how it is answered before ASGI where it is.

        Raises:
            HeadRefused: if it is not a head of HTTP/1.1 or 1.0, or can be read in two ways.
            HeadTooLarge: if it is.
            BodyTooLarge: if it announces more than the limit.
        """
        self.check_size(raw)
        head = read_head(raw)
        hot = self._hot(head)
        self._check_length(head, hot)
        if hot and hot.head.request_id is None and hot.head.traceparent is None:
            self._keep(raw, hot)
        return head, hot

    def check_size(self, raw: bytes) -> None:
        """Raise ``HeadTooLarge`` for a head, or the beginning of one, beyond the limit."""
        if len(raw) > self._limits.header_bytes:
            raise HeadTooLarge(self._limits.header_bytes)

    def _check_length(self, head: RequestHead, hot: HotHead | None) -> None:
        # What is not hot has limits of its own, and this is the most of any.
        is_json = hot is not None and hot.head.header_length is None
        limit = self._limits.body_bytes if is_json else self._limits.binary_bytes
        if head.length is not None and head.length > limit:
            raise BodyTooLarge(f"a body of {head.length:,} bytes", limit, "bytes")

    def _keep(self, raw: bytes, hot: HotHead) -> None:
        if len(raw) > _LONGEST_KEPT:
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()  # rare, and one parse a client; an order of use would cost each time
        self._kept[raw] = hot

    def _hot(self, request: RequestHead) -> HotHead | None:
        headers = request.headers
        if request.method != "POST" or "content-length" not in headers:
            return None
        if "expect" in headers or "content-encoding" in headers:
            return None
        codec, name, version = self._paths.get(request.target), None, None
        if codec is None and self._v2 and (found := _V2.fullmatch(request.target)):
            codec, (name, version) = self._v2, found.groups()
        if codec is None or request.length is None:
            return None
        head = codec_head(request.target, headers, name=name, version=version)
        forwarded_for = headers.get("x-forwarded-for")
        return HotHead(codec, head, request.length, request.keep_alive, forwarded_for)


def codec_head(
    path: str, headers: Mapping[str, str], *, name: str | None = None, version: str | None = None
) -> Head:
    """Return the part of a head that codecs read.

    Raises:
        HeadRefused: naming a header whose value has no meaning.
    """
    return Head(
        path=path,
        name=name,
        version=version,
        request_id=sane_request_id(headers.get("x-request-id")),
        content_type=headers.get("content-type", ""),
        accept=headers.get("accept", ""),
        header_length=_header_length(headers),
        timeout=_timeout(headers),
        traceparent=headers.get("traceparent"),
    )


def read_head(raw: bytes, *, whole: bool = True) -> RequestHead:
    """Return what ``raw`` says; unless it must be ``whole``, what is known of it so far.

    Raises:
        HeadRefused: if it is not, or cannot become, a head of HTTP/1.1 or 1.0.
    """
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # the head is whole, and is answered as if it asked for no upgrade
    except httptools.HttpParserError as error:
        raise HeadRefused(f"it is not HTTP/1.1: {error}") from error
    version, method = parser.get_http_version(), parser.get_method().decode("ascii")
    if whole and not seen.complete:  # as of "PRI * HTTP/2.0", after which llhttp waits for more
        raise HeadRefused("it is not HTTP/1.1")
    if seen.complete:
        _check(version, method, [name for name, _ in seen.headers])
    return RequestHead(
        method=method,
        target=seen.url.decode("latin-1"),
        headers=dict(reversed(seen.headers)),
        keep_alive=version == "1.1" and parser.should_keep_alive(),
    )


class _Seen:
    """What the parser calls back with."""

    def __init__(self) -> None:
        self.url, self.complete = b"", False
        self.headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower().decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _check(version: str, method: str, names: list[str]) -> None:
    if method == "CONNECT":
        raise HeadRefused("it is a CONNECT; this server is no proxy")
    if version not in ("1.0", "1.1"):
        raise HeadRefused(f"it is of HTTP/{version}; this server speaks 1.1")
    if names.count("host") != 1 and (version == "1.1" or "host" in names):
        raise HeadRefused("it names no host, or several; send one Host header")
    if "transfer-encoding" in names and "content-length" in names:
        raise HeadRefused("it has both Content-Length and Transfer-Encoding; send one of them")


def _header_length(headers: Mapping[str, str]) -> int | None:
    given = headers.get("inference-header-content-length")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 10):
        raise HeadRefused(
            f"Inference-Header-Content-Length is {given[:40]!r}; write how many bytes of JSON come "
            "before the tensors"
        )
    return int(given)


def _timeout(headers: Mapping[str, str]) -> float | None:
    given = headers.get("x-request-timeout")
    if given is None:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", given, re.ASCII) or float(given) == 0:
        raise HeadRefused(f"X-Request-Timeout is {given[:40]!r}; write seconds above 0, like 0.25")
    return float(given)
