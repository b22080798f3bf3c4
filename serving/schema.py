"""What a request row must hold, from the feature plan of the model that answers it.

Checked a column at a time: a column whose values all have the right type and lie within bounds
costs a few comparisons; only a wrong one is gone through value by value, to name every problem.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import msgspec
import numpy as np

from headrace.plan import FeaturePlan
from headrace.spec import RequestField
from serving.errors import FieldsRefused, Problem

Kind = Literal["string", "int32", "int64", "float64", "timestamp"]

MOST_PROBLEMS = 20
"""How many problems one answer lists."""

EXPECTED: dict[Kind, str] = {
    "string": 'a string, like "JFK"',
    "int32": "a whole number of 32 bits, like 17",
    "int64": "a whole number of 64 bits, like 17",
    "float64": "a number, like 2475.0",
    "timestamp": 'a time with its zone, like "2013-08-01T12:00:00Z"',
}
_TYPES: dict[Kind, tuple[type, ...]] = {
    "string": (str,),
    "int32": (int,),
    "int64": (int,),
    "float64": (int, float),
    "timestamp": (str,),
}
_FLOAT32 = float(np.finfo(np.float32).max)
_RANGES: dict[Kind, tuple[float, float]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float64": (-_FLOAT32, _FLOAT32),  # models see 32-bit floats; NaN is in no range
}


@dataclass(frozen=True)
class Field:
    """One field of a request row."""

    name: str
    kind: Kind
    description: str
    is_key: bool = False
    """An entity key: null stands for an unknown entity, whose features are missing."""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def expected(self) -> str:
        """What to write, in words."""
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return ", ".join([EXPECTED[self.kind], *bounds]) + (" (or null)" if self.is_key else "")


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
        self.fields = tuple(_fields(plan))
        self._names = frozenset(field.name for field in self.fields)
        self._keys = plan.entity_keys
        taken = {name for pin in plan.transforms for name in pin.inputs}
        self._request = tuple(
            field.name for field in self.fields if not field.is_key or field.name in taken
        )
        self._event_timestamp = plan.event_timestamp

    def rows(self, instances: list[Any]) -> Rows:
        """Return ``instances`` as columns.

        Raises:
            FieldsRefused: naming every field that is missing, unknown, of a wrong type or out of
                bounds, with its row and value.
        """
        names = self._names
        if not all(isinstance(row, dict) and row.keys() == names for row in instances):
            raise FieldsRefused(_first(self._wrong_shapes(instances)))
        raw = {field.name: [row[field.name] for row in instances] for field in self.fields}
        columns: dict[str, np.ndarray] = {}
        problems: list[Problem] = []
        for field in self.fields:
            if _fits(field, raw[field.name]):
                columns[field.name] = _column(field, raw[field.name])
            else:
                problems += _first(_wrong_values(field, raw[field.name]))
        if problems:
            raise FieldsRefused(problems[:MOST_PROBLEMS])
        return Rows(
            keys={name: raw[name] for name in self._keys},
            request={name: columns[name] for name in self._request},
            at=columns[self._event_timestamp],
        )

    def _wrong_shapes(self, instances: list[Any]) -> Iterator[Problem]:
        for number, row in enumerate(instances):
            if not isinstance(row, dict):
                message = f"row {number} is {show(row)}; write an object with one value a field"
                yield Problem(message, row=number)
                continue
            for name in sorted(row.keys() - self._names):
                yield Problem(_unknown(number, name, self._names), field=name, row=number)
            for field in self.fields:
                if field.name not in row:
                    message = f"row {number} has no field {field.name!r}; write {field.expected}"
                    yield Problem(message, field=field.name, row=number)


def show(value: Any) -> str:
    """A value as the caller wrote it, in JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def parse_timestamp(text: str) -> datetime:
    """Return the moment that an ISO 8601 ``text`` names, in UTC.

    Raises:
        ValueError: if it is no time, has no zone, or lies outside the years 1 to 9999.

    >>> parse_timestamp("2013-08-01T08:00:00-04:00")
    datetime.datetime(2013, 8, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from error


def _fields(plan: FeaturePlan) -> Iterator[Field]:
    declared = {field.name: field for field in plan.request}
    key_kinds = {key.name: key.dtype for view in plan.views for key in view.join_keys}
    for name, dtype in key_kinds.items():
        kind: Kind = "string" if dtype == "STRING" else "int32" if dtype == "INT32" else "int64"
        told = declared.get(name)
        yield Field(name, kind, told.description if told else "join key", is_key=True)
    for field in declared.values():
        if field.name not in key_kinds:
            yield _request_field(field)
    if plan.event_timestamp not in declared:
        yield Field(plan.event_timestamp, "timestamp", "the moment of prediction, with its zone")


def _request_field(field: RequestField) -> Field:
    return Field(
        field.name,
        field.dtype,
        field.description,
        at_least=field.at_least,
        at_most=field.at_most,
    )


def _fits(field: Field, values: list[Any]) -> bool:
    allowed = (*_TYPES[field.kind], type(None)) if field.is_key else _TYPES[field.kind]
    if not set(map(type, values)).issubset(allowed):
        return False
    if field.kind == "string":
        return True
    return all(_problem(field, value) is None for value in set(values))


def _wrong_values(field: Field, values: list[Any]) -> Iterator[Problem]:
    for row, value in enumerate(values):
        if wrong := _problem(field, value):
            message = f"row {row}: {field.name} = {show(value)} {wrong}; write {field.expected}"
            yield Problem(message, field=field.name, row=row)


def _problem(field: Field, value: Any) -> str | None:
    if value is None and field.is_key:
        return None
    if type(value) not in _TYPES[field.kind]:
        return f"is {_type_word(value)}"
    if field.kind == "timestamp":
        return _timestamp_problem(value)
    if field.kind != "string":
        return _number_problem(field, value)
    return None


def _timestamp_problem(value: str) -> str | None:
    try:
        parse_timestamp(value)
    except ValueError as error:
        return "has no zone" if "no zone" in str(error) else "is not a time"
    return None


def _number_problem(field: Field, value: float) -> str | None:
    low, high = _RANGES[field.kind]
    if not low <= value <= high:
        return f"does not fit {'a 32-bit float' if field.kind == 'float64' else field.kind}"
    if field.at_least is not None and value < field.at_least:
        return "is too small"
    if field.at_most is not None and value > field.at_most:
        return "is too large"
    return None


def _column(field: Field, values: list[Any]) -> np.ndarray:
    if field.kind == "timestamp":
        moments = {text: parse_timestamp(text).replace(tzinfo=None) for text in set(values)}
        return np.array([moments[text] for text in values], "datetime64[us]")
    if field.is_key or field.kind == "string":
        column = np.empty(len(values), object)
        column[:] = values
        return column
    return np.array(values, np.float64)


def _unknown(row: int, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(sorted(known))}"
    return f"row {row} has an unknown field {show(name)}; {hint}"


def _first(problems: Iterator[Problem]) -> list[Problem]:
    return list(islice(problems, MOST_PROBLEMS))


def _type_word(value: Any) -> str:
    words: Mapping[type, str] = {
        bool: "a boolean",
        type(None): "null",
        str: "text",
        int: "a whole number",
        float: "a number with a fraction",
        list: "a list",
        dict: "an object",
    }
    return words[type(value)]
