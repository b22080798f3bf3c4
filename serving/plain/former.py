"""The plain call: rows of entity keys and request fields in, predictions and their features out.

``{"instances": [{"origin": "JFK", ..., "scheduled_departure": "2013-08-01T12:00:00Z"}]}``
"""

import difflib
from typing import Any

from serving.dataplane import STATUS_NAMES, Answer, ServedModel, infer_keys
from serving.errors import BodyTooLarge, FieldsRefused, Problem, RequestRefused

EDGE = "plain"
_WRITE = 'write {"instances": [{...}, ...]}, one object a row'


def infer(model: ServedModel, document: Any, *, max_rows: int) -> Answer:
    """Answer a decoded request body.

    Raises:
        FieldsRefused: naming what is wrong with which field of which row.
        BodyTooLarge: for more than ``max_rows`` rows.
    """
    return infer_keys(model, model.schema.rows(_instances(document, max_rows)))


def render(answer: Answer, request_id: str) -> dict[str, Any]:
    """The response body."""
    model = answer.model
    views = list(answer.statuses)
    words = [[STATUS_NAMES[code] for code in codes.tolist()] for codes in answer.statuses.values()]
    found = zip(*words, strict=True) if views else ((),) * len(answer.predictions)
    return {
        "model": model.predictor.bundle.manifest.model,
        "digest": model.predictor.digest,
        "revision": model.release.revision,
        "request_id": request_id,
        "degraded": answer.degraded,
        "predictions": [
            {"prediction": prediction, "features": dict(zip(views, row, strict=True))}
            for prediction, row in zip(answer.predictions.tolist(), found, strict=True)
        ],
    }


def render_error(error: Exception, request_id: str) -> dict[str, Any]:
    """The response body of an error; every problem that is known by row and field is listed."""
    body: dict[str, Any] = {"error": str(error), "request_id": request_id}
    if isinstance(error, FieldsRefused):
        body["problems"] = [
            {"row": p.row, "field": p.field, "message": p.message} for p in error.problems
        ]
    return body


def _instances(document: Any, max_rows: int) -> list[Any]:
    if not isinstance(document, dict):
        raise _refused(f"the body is not an object; {_WRITE}")
    for key in document:
        if key != "instances":
            near = difflib.get_close_matches(key, ["instances"], n=1)
            hint = "did you mean 'instances'?" if near else _WRITE
            raise _refused(f"the body has an unknown field {key!r}; {hint}", field=key)
    instances = document.get("instances")
    if not isinstance(instances, list) or not instances:
        what = "is empty" if instances == [] else "is not a list" if instances else "is missing"
        raise _refused(f"'instances' {what}; {_WRITE}", field="instances")
    if len(instances) > max_rows:
        raise BodyTooLarge(f"{len(instances):,} rows", max_rows, "rows")
    return instances


def _refused(message: str, *, field: str | None = None) -> RequestRefused:
    return FieldsRefused([Problem(message, field=field)])
