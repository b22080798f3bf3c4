"""From a request's tensors to the rows that the data plane answers.

Three forms: one tensor for each of the model's columns, of shape [n] or [n, 1]; one tensor
``features`` of shape [n, columns] in declared order; or one tensor for each field of the request
schema (entity keys, moment of prediction), for which features are read. Columns sent beside keys
win over what is read.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.dataplane import ServedModel
from serving.errors import BodyTooLarge
from serving.query import Overrides
from serving.schema import show
from serving.v2.tensors import Tensor, refused

FEATURES = "features"


@dataclass(slots=True)
class Inputs:
    """What the tensors say: raw features, or rows of keys."""

    rows: int
    features: np.ndarray | None = None
    """float32, shape (rows, columns)."""
    instances: list[dict[str, Any]] | None = None
    overrides: Overrides | None = None


def read_inputs(model: ServedModel, tensors: dict[str, Tensor], *, max_rows: int) -> Inputs:
    """Return the rows that ``tensors`` (by name) hold.

    Raises:
        FieldsRefused: naming the tensor, and what its shape, datatype or data should be.
        BodyTooLarge: for more than ``max_rows`` rows.
    """
    columns = model.predictor.columns
    if FEATURES in tensors and FEATURES not in columns:
        return _from_one(tensors, columns, max_rows)
    fields = [field.name for field in model.schema.fields]
    if not any(name in tensors and name not in columns for name in fields):
        _check_names(tensors, columns, columns, "the model's columns", max_rows)
        return Inputs(_rows(tensors), np.column_stack([tensors[c].numbers() for c in columns]))
    _check_names(tensors, fields, [*fields, *columns], "the fields of a keyed request", max_rows)
    return _keyed(tensors, fields)


def _from_one(tensors: dict[str, Tensor], columns: Sequence[str], max_rows: int) -> Inputs:
    tensor = tensors[FEATURES]
    if len(tensors) > 1:
        names = ", ".join(sorted(set(tensors) - {FEATURES}))
        raise refused(
            f"besides {FEATURES!r} there are inputs {names}; send one or the other", FEATURES
        )
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != len(columns):
        raise refused(
            f"input {FEATURES!r} has shape {show(shape)}; write [rows,{len(columns)}]", FEATURES
        )
    _check_rows(shape[0], max_rows)
    return Inputs(shape[0], tensor.numbers().reshape(shape))


def _keyed(tensors: dict[str, Tensor], fields: list[str]) -> Inputs:
    given = zip(*(tensors[name].values() for name in fields), strict=True)
    overrides = {
        name: dict(enumerate(tensor.numbers().tolist()))
        for name, tensor in tensors.items()
        if name not in fields
    }
    instances = [dict(zip(fields, row, strict=True)) for row in given]
    return Inputs(len(instances), instances=instances, overrides=overrides or None)


def _check_names(
    tensors: dict[str, Tensor],
    needed: Sequence[str],
    known: Sequence[str],
    what: str,
    max_rows: int,
) -> None:
    for name in tensors:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, FEATURES], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the model's metadata"
            raise refused(f"the model has no input {name!r}; {hint}", name)
    if missing := [name for name in needed if name not in tensors]:
        raise refused(
            f"inputs are missing: {', '.join(missing)}; send all of {what}, with null for what is "
            f"not known, or one tensor {FEATURES!r}",
            missing[0],
        )
    rows = _rows(tensors)
    _check_rows(rows, max_rows)
    for name, tensor in tensors.items():
        if tensor.shape not in ([rows], [rows, 1]):
            said = f"input {name!r} has shape {show(tensor.shape)}; write [{rows}] or [{rows},1]"
            raise refused(said, name)


def _rows(tensors: dict[str, Tensor]) -> int:
    return next(iter(tensors.values())).shape[0]


def _check_rows(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise BodyTooLarge(f"{rows:,} rows", max_rows, "rows")
