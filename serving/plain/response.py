"""Answers of the plain API as JSON: what is the same for all requests of a model is made once."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.errors import HeadraceError
from serving.errors import FieldsRefused, Problem
from serving.fields import show
from serving.plain.asked import SingleQuery
from serving.served import STATUS_NAMES

if TYPE_CHECKING:
    from serving.query import Answer
    from serving.served import ServedModel

_encode = msgspec.json.encode
_MOST_KEPT = 4_096
_LONGEST_CUT = 60
_ROW = re.compile(r"\brow \d+\b")


class Wording:
    """The words of one model's answers."""

    def __init__(self, model: "ServedModel") -> None:
        head = {
            "model": model.release.endpoint,
            "digest": model.predictor.digest,
            "revision": model.release.revision,
        }
        self._head = _encode(head)[:-1]
        self._ends: dict[bytes, bytes] = {}

    def answer(self, answer: "Answer") -> bytes:
        """The body of an answer of which every row has a prediction."""
        predictions = self.predictions(answer)
        opening = self.opening(answer.query.request_id, degraded=answer.degraded)
        opening += b',"cached":true' if answer.cached else b',"cached":false'
        if type(answer.query) is SingleQuery:
            return opening + b"," + predictions[0][1:]
        return opening + b',"predictions":[' + b",".join(predictions) + b"]}"

    def opening(self, request_id: str, *, degraded: bool) -> bytes:
        """How every body begins, up to the predictions."""
        word = b"true" if degraded else b"false"
        return b'%b,"request_id":%b,"degraded":%b' % (self._head, _encode(request_id), word)

    def predictions(self, answer: "Answer") -> list[bytes]:
        """Each row's prediction with what became of its reads, as objects."""
        values, (views, reads) = answer.values, answer.reads
        if not views:
            return [b'{"prediction":' + _encode(value) + b',"features":{}}' for value in values]
        ends = self._ends
        return [
            b'{"prediction":' + _encode(value) + (ends.get(codes) or self._end(codes, views))
            for value, codes in zip(values, reads, strict=True)
        ]

    def _end(self, codes: bytes, views: tuple[str, ...]) -> bytes:
        names = [STATUS_NAMES[code] for code in codes]
        end = b',"features":' + _encode(dict(zip(views, names, strict=True))) + b"}"
        if len(self._ends) < _MOST_KEPT:
            self._ends[codes] = end
        return end


def error_body(error: HeadraceError, request_id: str) -> bytes:
    """The body of an error; every problem that is known by row and field is listed."""
    body: dict[str, Any] = {"error": str(error), "request_id": request_id}
    if isinstance(error, FieldsRefused):
        body["problems"] = list(map(_problem, error.problems))
    return _encode(body)


def error_item(error: HeadraceError, row: int) -> bytes:
    """What stands in place of a prediction where the row at place ``row`` has none."""
    problems = error.problems if isinstance(error, FieldsRefused) else [Problem(str(error))]
    told = [_problem(found) for found in _in_row(problems, row)]
    return _encode({"error": told[0]["message"], "problems": told})


def _in_row(problems: Sequence[Problem], row: int) -> list[Problem]:
    """Problems of a part of a request, with the number that their row has in all of it."""
    return [
        replace(p, row=row, message=_ROW.sub(f"row {row}", p.message, count=1)) for p in problems
    ]


def _problem(found: Problem) -> dict[str, Any]:
    """One problem, as an object."""
    return {
        "row": found.row,
        "field": None if found.field is None else _cut(found.field),
        "value": found.value,
        "message": found.message,
        "remedy": found.remedy,
    }


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_CUT else show(name)
