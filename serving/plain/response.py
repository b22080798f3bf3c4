"""Answers of the plain API as JSON: what is the same for all requests of a model is made once."""

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
        if type(answer.query) is SingleQuery:
            return self.opening(answer) + b"," + predictions[0][1:] + b"}"
        return self.opening(answer) + b',"predictions":[' + b",".join(predictions) + b"]}"

    def opening(self, answer: "Answer") -> bytes:
        """How every body begins, up to the predictions."""
        degraded = b"true" if answer.degraded else b"false"
        return b'%b,"request_id":%b,"degraded":%b' % (
            self._head,
            _encode(answer.query.request_id),
            degraded,
        )

    def predictions(self, answer: "Answer") -> list[bytes]:
        """Each row's prediction with what became of its reads, as objects."""
        values = answer.values
        if not answer.views:
            return [b'{"prediction":' + _encode(value) + b',"features":{}}' for value in values]
        ends = self._ends
        return [
            b'{"prediction":' + _encode(value) + (ends.get(codes) or self._end(codes, answer.views))
            for value, codes in zip(values, answer.codes, strict=True)
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
        body["problems"] = list(map(problem, error.problems))
    return _encode(body)


def problem(found: Problem) -> dict[str, Any]:
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
