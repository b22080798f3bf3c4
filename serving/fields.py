"""One field of a request row: what it may hold, and what to say of a value that it may not."""

import difflib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from headrace.plan import FeaturePlan
from headrace.spec import RequestField
from serving.errors import Problem
from serving.moments import parse_timestamp

Kind = Literal["string", "int32", "int64", "float64", "timestamp"]

FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can see."""
EXPECTED: dict[Kind, str] = {
    "string": 'a string, like "JFK"',
    "int32": "a whole number of 32 bits, like 17",
    "int64": "a whole number of 64 bits, like 17",
    "float64": "a number, like 2475.0",
    "timestamp": 'a time with its zone, like "2013-08-01T12:00:00Z"',
}
TYPES: dict[Kind, tuple[type, ...]] = {
    "string": (str,),
    "int32": (int,),
    "int64": (int,),
    "float64": (int, float),
    "timestamp": (str,),
}
_LONGEST_NAME = 64
_RANGES: dict[Kind, tuple[float, float]] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float64": (-FLOAT32, FLOAT32),  # NaN is in no range
}
_TYPE_WORDS: dict[type, str] = {
    bool: "a boolean",
    type(None): "null",
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
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
    one_of: tuple[str | int, ...] | None = None

    @property
    def expected(self) -> str:
        """What to write, in words."""
        null = " (or null)" if self.is_key else ""
        if self.one_of is not None:
            return f"one of {', '.join(map(show, self.one_of))}{null}"
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return ", ".join([EXPECTED[self.kind], *bounds]) + null

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest number that fits; None for what is no number."""
        if self.kind not in _RANGES:
            return None
        low, high = _RANGES[self.kind]
        low = low if self.at_least is None else max(low, self.at_least)
        return low, high if self.at_most is None else min(high, self.at_most)

    def fits(self, values: list[Any]) -> bool:
        """Whether all of ``values`` may stand here, looked at together."""
        kinds = set(map(type, values))
        if self.is_key and type(None) in kinds:
            kinds.remove(type(None))
            values = [value for value in values if value is not None]
        if not kinds.issubset(TYPES[self.kind]):
            return False
        if self.one_of is not None:
            return set(values).issubset(self.one_of)
        if not values or (bounds := self.range) is None:
            return self.kind != "timestamp" or all(map(_is_moment, set(values)))
        if any(type(value) is float and math.isnan(value) for value in values):
            return False  # compared with anything it would pass
        return bool(bounds[0] <= min(values) and max(values) <= bounds[1])

    def problem(self, value: Any) -> str | None:
        """What is wrong with ``value``, in words that follow it; None if nothing is."""
        if value is None and self.is_key:
            return None
        if type(value) not in TYPES[self.kind]:
            return f"is {_TYPE_WORDS[type(value)]}"
        if self.one_of is not None and value not in self.one_of:
            return "is not known"
        if self.kind == "timestamp":
            return _moment_problem(value)
        return self._number_problem(value) if self.kind != "string" else None

    def problems(self, values: list[Any]) -> Iterator[Problem]:
        """Each row whose value may not stand here."""
        for row, value in enumerate(values):
            if wrong := self.problem(value):
                yield problem_of(row, self.name, value, wrong, self.expected)

    def _number_problem(self, value: float) -> str | None:
        low, high = _RANGES[self.kind]
        if not low <= value <= high:
            return f"does not fit {'a 32-bit float' if self.kind == 'float64' else self.kind}"
        if self.at_least is not None and value < self.at_least:
            return "is too small"
        if self.at_most is not None and value > self.at_most:
            return "is too large"
        return None


def fields_of(plan: FeaturePlan) -> Iterator[Field]:
    """The fields of a row that a plan needs: join keys, request fields, the moment."""
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


def problem_of(row: int | None, name: str, value: Any, wrong: str, expected: str) -> Problem:
    """Say that ``value`` of field ``name`` is ``wrong``, and what to write."""
    place, shown = f"row {row}: " if row is not None else "", show(value)
    message = f"{place}{name} = {shown} {wrong}; write {expected}"
    return Problem(message, field=name, row=row, value=shown, remedy=f"write {expected}")


def show(value: Any) -> str:
    """A value as the caller wrote it, in JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


@functools.lru_cache(1024)
def near_name(name: str, known: tuple[str, ...]) -> str | None:
    """The one of ``known`` names that ``name`` is a slip of; None if there is none.

    Long names are not compared: that takes time that grows with their square.
    """
    if len(name) > _LONGEST_NAME:
        return None
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def type_word(value: Any) -> str:
    """What a JSON value is, in words."""
    return _TYPE_WORDS[type(value)]


def _request_field(told: RequestField) -> Field:
    return Field(
        told.name,
        told.dtype,
        told.description,
        at_least=told.at_least,
        at_most=told.at_most,
        one_of=told.one_of,
    )


def _is_moment(text: str) -> bool:
    return _moment_problem(text) is None


def _moment_problem(text: str) -> str | None:
    try:
        parse_timestamp(text)
    except ValueError as error:
        return "has no zone" if "no zone" in str(error) else "is not a time"
    return None
