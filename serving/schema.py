"""What a request row must hold, from the feature plan of the model that answers it.

Checked a column at a time: a column whose values all have the right type and lie within bounds
costs a few comparisons; only a wrong one is gone through value by value, to name every problem.
Rows that were decoded as ``RequestSchema.row_type`` were checked by the decoder already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from msgspec.structs import astuple

from headrace.plan import FeaturePlan
from serving.errors import FieldsRefused, Problem
from serving.fields import Field, fields_of, near_name, show
from serving.moments import Moments, parse_timestamp
from serving.row_types import keyed_row_type

__all__ = ["MOST_PROBLEMS", "Field", "RequestSchema", "Rows", "parse_timestamp", "show"]

MOST_PROBLEMS = 20
"""How many problems one answer lists."""


@dataclass(frozen=True)
class Rows:
    """Request rows that fit, as columns."""

    keys: dict[str, list[str | int | None]]
    """The join keys of each row; None is an unknown entity."""
    request: dict[str, np.ndarray]
    """What transforms and the model take: float64 for every number, datetime64[us] in UTC, else
    objects, shape (rows,); the same types as offline (``featurestore.vectors``)."""
    at: np.ndarray
    """The moment of prediction, datetime64[us] in UTC, shape (rows,)."""


class RequestSchema:
    """The fields of one model's request rows."""

    def __init__(self, plan: FeaturePlan) -> None:
        self.fields = tuple(fields_of(plan))
        self.row_type = keyed_row_type(self.fields)
        """What a decoder makes of rows that fit; see ``serving.row_types``."""
        self._names = frozenset(field.name for field in self.fields)
        self._keys = plan.entity_keys
        taken = {name for pin in plan.transforms for name in pin.inputs}
        self._request = tuple(
            field for field in self.fields if not field.is_key or field.name in taken
        )
        self._event_timestamp = plan.event_timestamp
        self._moments = Moments()

    def rows(self, instances: list[Any]) -> Rows:
        """Return ``instances`` as columns.

        Args:
            instances: a dictionary a row, as decoded from JSON, or what a decoder made of
                ``row_type``; a batch may hold both.

        Raises:
            FieldsRefused: naming every field that is missing, unknown, of a wrong type or out of
                bounds, with its row and value.
        """
        if set(map(type, instances)) != {self.row_type}:
            return self._columns(self._checked(instances))
        columns = self._side_by_side(instances)
        try:
            return self._columns(columns)
        except ValueError:  # a moment that is none
            return self._columns(self._checked(instances))

    def _side_by_side(self, instances: list[Any]) -> dict[str, list[Any]]:
        columns = map(list, zip(*map(astuple, instances), strict=True))
        return dict(zip([field.name for field in self.fields], columns, strict=True))

    def _checked(self, instances: list[Any]) -> dict[str, list[Any]]:
        names = self._names
        rows = [self._object(row) for row in instances]
        if not all(isinstance(row, dict) and row.keys() == names for row in rows):
            raise FieldsRefused(_first(self._wrong_shapes(rows)))
        columns = {field.name: [row[field.name] for row in rows] for field in self.fields}
        problems: list[Problem] = []
        for field in self.fields:
            if not field.fits(columns[field.name]):
                problems += _first(field.problems(columns[field.name]))
        if problems:
            raise FieldsRefused(problems[:MOST_PROBLEMS])
        return columns

    def _object(self, row: Any) -> Any:
        if type(row) is not self.row_type:
            return row
        return dict(zip([field.name for field in self.fields], astuple(row), strict=True))

    def _columns(self, columns: dict[str, list[Any]]) -> Rows:
        request = {f.name: self._column(f, columns[f.name]) for f in self._request}
        return Rows(
            keys={name: columns[name] for name in self._keys},
            request=request,
            at=request[self._event_timestamp],
        )

    def _column(self, field: Field, values: list[Any]) -> np.ndarray:
        if field.kind == "timestamp":
            return self._moments.column(values)
        if field.is_key or field.kind == "string":
            column = np.empty(len(values), object)
            column[:] = values
            return column
        return np.array(values, np.float64)

    def _wrong_shapes(self, instances: list[Any]) -> Iterator[Problem]:
        for number, row in enumerate(instances):
            if not isinstance(row, dict):
                remedy = "write an object with one value a field"
                message = f"row {number} is {show(row)}; {remedy}"
                yield Problem(message, row=number, value=show(row), remedy=remedy)
                continue
            for name in sorted(row.keys() - self._names):
                yield _unknown(number, name, tuple(sorted(self._names)))
            for field in self.fields:
                if field.name not in row:
                    remedy = f"write {field.expected}"
                    message = f"row {number} has no field {field.name!r}; {remedy}"
                    yield Problem(message, field=field.name, row=number, remedy=remedy)


def _unknown(row: int, name: str, known: tuple[str, ...]) -> Problem:
    near = near_name(name, known)
    hint = f"did you mean {near!r}?" if near else f"the fields are {', '.join(known)}"
    message = f"row {row} has an unknown field {show(name)}; {hint}"
    return Problem(message, field=name, row=row, value=show(name), remedy=hint)


def _first(problems: Iterator[Problem]) -> list[Problem]:
    return list(islice(problems, MOST_PROBLEMS))
