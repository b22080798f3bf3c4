"""Small JSON documents that show by themselves whether they are whole.

A sealed document is one JSON object. Its first line holds the SHA-256 of every byte after that
line, so a bit flipped or a piece cut off is found before any parser sees the rest::

    {"sha256": "<64 digits>",
    "run": "...", ...}
"""

import json
from typing import TypeVar

from pydantic import ValidationError

from headrace.errors import HeadraceError
from headrace.spec import Part
from headrace.storage import sha256

Document = TypeVar("Document", bound=Part)


class Damaged(HeadraceError):
    """A document whose bytes are not those that were written."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(f"{uri} is damaged: {reason}. Restore it from a good copy.")


def seal(part: Part) -> bytes:
    """The document of ``part``. Equal parts give equal bytes."""
    text = json.dumps(part.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    body = text[1:].encode()
    return _first_line(body) + body


def unseal(document: bytes, kind: type[Document], *, uri: str) -> Document:
    """Read a document back.

    Args:
        document: its bytes.
        kind: what it is.
        uri: where it came from, for the error.

    Raises:
        Damaged: if a byte of it was changed, lost or added, or it is of another kind.
    """
    first, _, body = document.partition(b"\n")
    if first + b"\n" != _first_line(body):
        raise Damaged(uri, "its SHA-256 is not the one in its first line")
    try:
        return kind.model_validate_json(b"{" + body)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(str(step) for step in wrong["loc"])
        raise Damaged(uri, f"it is no {kind.__name__}: {field}: {wrong['msg']}") from error


def _first_line(body: bytes) -> bytes:
    return b'{"sha256": "%s",\n' % sha256(body).encode()
