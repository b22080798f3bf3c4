"""The rows of a job's body, cut into parts without reading what is in them.

Only where each row begins and ends is looked for when a job is submitted, which takes some ten
milliseconds for ten megabytes; what a row says is read when its part is computed.
"""

from typing import Any

import msgspec

from serving import json_body
from serving.errors import BodyRefused, BodyTooLarge, FieldsRefused, Problem, RequestRefused

_WRITE = 'write {"instances": [{...}, ...]}, one object a row'


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[msgspec.Raw]


_body = msgspec.json.Decoder(_Body)
_raw_rows = msgspec.json.Decoder(list[msgspec.Raw])


def cut(body: bytes, *, rows_a_part: int, most_rows: int) -> tuple[list[bytes], int]:
    """Return the parts of a body, each a JSON array of rows, and how many rows there are.

    Raises:
        BodyRefused: if it is not JSON, or says a key twice.
        FieldsRefused: if it is not ``{"instances": [...]}`` with at least one row.
        BodyTooLarge: for more than ``most_rows`` rows.
    """
    try:
        rows = [bytes(row) for row in _body.decode(body).instances]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        json_body.decode(body)  # names what is no JSON
        message = f"the body is refused: {error}; {_WRITE}"
        raise FieldsRefused([Problem(message, field="instances")]) from error
    if not rows:
        raise FieldsRefused([Problem(f"'instances' is empty; {_WRITE}", field="instances")])
    if body.count(b'"') != 2 + sum(row.count(b'"') for row in rows):
        raise BodyRefused("key 'instances' is there twice in one object; write it once")
    if len(rows) > most_rows:
        raise BodyTooLarge(f"{len(rows):,} rows", most_rows, "rows")
    starts = range(0, len(rows), rows_a_part)
    return [b"[%b]" % b",".join(rows[n : n + rows_a_part]) for n in starts], len(rows)


def read(part: bytes) -> tuple[dict[int, Any], dict[int, RequestRefused]]:
    """Return the rows of a part by their place, and those that cannot be read with the reason."""
    try:
        return dict(enumerate(json_body.decode(part))), {}
    except BodyRefused:  # a row says a key twice, or holds what is no number; the others are good
        return _one_by_one(part)


def _one_by_one(part: bytes) -> tuple[dict[int, Any], dict[int, RequestRefused]]:
    rows: dict[int, Any] = {}
    refused: dict[int, RequestRefused] = {}
    for place, row in enumerate(_raw_rows.decode(part)):
        try:
            rows[place] = json_body.decode(bytes(row))
        except BodyRefused as error:
            refused[place] = error
    return rows, refused
