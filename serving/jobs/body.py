"""The rows of a job's body, cut into parts without reading what is in them.

Only where each row begins and ends is looked for when a job is submitted, which takes some ten
milliseconds for ten megabytes; what a row says is read when its part is computed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from serving import json_body
from serving.errors import BodyRefused, BodyTooLarge, FieldsRefused, Problem
from serving.plain.asked import Asked
from serving.plain.request import read_request

if TYPE_CHECKING:
    from serving.repository import ModelRepository
    from serving.served import ServedModel


class _Body(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    instances: list[msgspec.Raw] | None = None
    features: list[msgspec.Raw] | None = None
    model: str | None = None


_body = msgspec.json.Decoder(_Body)
_encode = msgspec.json.encode


@dataclass(frozen=True)
class Cut:
    """A body in parts."""

    model: str | None
    """The endpoint that it names, if any."""
    parts: list[bytes]
    """Each a body of its own."""
    rows: int


def cut(body: bytes, repository: "ModelRepository", *, part_rows: int, most_rows: int) -> Cut:
    """Return the parts of a body of the plain API.

    Raises:
        BodyRefused: if it is not JSON, or says a key twice.
        FieldsRefused: if it has no rows, or another form than those of the plain API.
        BodyTooLarge: for more than ``most_rows`` rows.
    """
    try:
        found = _body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = _Body()
    rows = [bytes(row) for row in found.instances or found.features or ()]
    if not rows or (found.instances is not None and found.features is not None):
        raise _what_is_wrong(body, repository, most_rows)
    if body.count(b'"') != _encode(found).count(b'"'):
        raise BodyRefused("a key of the body is there twice; write it once")
    if len(rows) > most_rows:
        raise BodyTooLarge(f"{len(rows):,} rows", most_rows, "rows")
    form = b"instances" if found.instances else b"features"
    starts = range(0, len(rows), part_rows)
    parts = [b'{"%b":[%b]}' % (form, b",".join(rows[n : n + part_rows])) for n in starts]
    return Cut(found.model, parts, len(rows))


def read(
    part: bytes, model: "ServedModel"
) -> tuple[Asked | None, list[int], dict[int, BodyRefused]]:
    """Return what a part asks of ``model``.

    Returns:
        What the rows ask that can be read, None where there are none; their places in the part;
        and by place, why the others cannot.
    """
    unread: dict[int, BodyRefused] = {}
    try:
        document = json_body.decode(part)
    except BodyRefused:  # a row says a key twice, or holds what is no number; the others are good
        document, unread = _row_by_row(part)
    (rows,) = document.values()
    places = [place for place in range(len(rows) + len(unread)) if place not in unread]
    if not rows:
        return None, places, unread
    pinned = cast("ModelRepository", _Pinned(model))
    asked = read_request(document, pinned, max_rows=len(rows), partial=True)
    return asked, places, unread


class _Pinned:
    """A repository of the one model that a job has begun with."""

    def __init__(self, model: "ServedModel") -> None:
        self._model = model

    def served(self, _name: str | None = None, _version: str | None = None) -> "ServedModel":
        return self._model


def _row_by_row(part: bytes) -> tuple[dict[str, list[Any]], dict[int, BodyRefused]]:
    found = _body.decode(part)
    rows: list[Any] = []
    unread: dict[int, BodyRefused] = {}
    for place, row in enumerate(found.instances or found.features or ()):
        try:
            rows.append(json_body.decode(bytes(row)))
        except BodyRefused as error:
            unread[place] = error
    return {"instances" if found.instances else "features": rows}, unread


def _what_is_wrong(body: bytes, repository: "ModelRepository", most_rows: int) -> Exception:
    """Let those who read such bodies in full say what is wrong with this one."""
    asked = read_request(json_body.decode(body), repository, max_rows=most_rows)
    # Good for one request, and yet no job: a single instance.
    remedy = 'write {"instances": [{...}, ...]}, one object a row'
    return FieldsRefused([Problem(f"a job of {len(asked.rows)} row is no job; {remedy}")])
