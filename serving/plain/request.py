"""From a decoded body to the rows that it asks, naming whatever is wrong.

``{"instances": [{...}, ...]}`` or ``{"instance": {...}}`` with join keys and request fields, each
row perhaps with ``"features": {column: value}`` that win over what is read; or raw features,
``{"features": [{column: value}, ...]}`` or lists in declared order. Beside them ``"model"`` may
name the endpoint.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from serving.errors import BodyTooLarge, FieldsRefused, Problem, RequestRefused
from serving.fields import FLOAT32, near_name, show, type_word
from serving.plain.asked import Asked, Given
from serving.plain.told import Told

if TYPE_CHECKING:
    from serving.repository import ModelRepository
    from serving.served import ServedModel

FEATURES, MODEL = "features", "model"
_FORMS = ("instances", "instance", FEATURES)
_WRITE = 'write {"instances": [{...}, ...]}, one object a row'
_NUMBER = "write a number, like 2475.0, or null where it is missing"


def read_request(
    document: Any, repository: "ModelRepository", *, max_rows: int, partial: bool = False
) -> Asked:
    """Return what a decoded body asks.

    Args:
        document: the body.
        repository: where its model is.
        max_rows: the most rows it may have.
        partial: a row whose features are wrong is set aside instead of refusing the request.

    Raises:
        FieldsRefused: naming what is wrong with which field of which row.
        BodyTooLarge: for more than ``max_rows`` rows.
        ModelNotServed: if the body names another model.
    """
    form = _form(document)
    model = repository.served(_model_name(document))
    rows = _rows(document[form], form, max_rows)
    if form == FEATURES:
        return _raw(model, rows, partial=partial)
    return _keyed(model, rows, single=form == "instance", partial=partial)


def _form(document: Any) -> str:
    if not isinstance(document, dict):
        raise _refused(f"the body is not an object; {_WRITE}")
    forms: list[str] = [key for key in document if key in _FORMS]
    for key in document:
        if key not in (*_FORMS, MODEL):
            near = near_name(key, (*_FORMS, MODEL))
            hint = f"did you mean {near!r}?" if near else _WRITE
            raise _refused(f"the body has an unknown field {show(key)}; {hint}", field=key)
    if not forms:
        raise _refused(f"'instances' is missing; {_WRITE}", field="instances")
    if len(forms) > 1:
        both = " and ".join(map(repr, forms))
        raise _refused(f"the body has {both}; write one of them", field=forms[1])
    return forms[0]


def _model_name(document: dict[str, Any]) -> str | None:
    if MODEL not in document:
        return None
    name = document[MODEL]
    if not isinstance(name, str):
        raise _refused(
            f"'model' = {show(name)} is {type_word(name)}; write an endpoint's name", field=MODEL
        )
    return name


def _rows(found: Any, form: str, max_rows: int) -> list[Any]:
    if form == "instance":
        return [found]
    if not isinstance(found, list) or not found:
        what = "is empty" if found == [] else "is not a list" if found else "is missing"
        raise _refused(f"{form!r} {what}; {_WRITE}", field=form)
    if len(found) > max_rows:
        raise BodyTooLarge(f"{len(found):,} rows", max_rows, "rows")
    return found


def _raw(model: "ServedModel", rows: Sequence[Any], *, partial: bool) -> Asked:
    columns, told = model.predictor.columns, Told(partial=partial)
    values = []
    for number, row in enumerate(rows):
        values.append(_raw_row(row, columns, number, told))
    return Asked(model, values, raw=True, refused=told.all())


def _raw_row(row: Any, columns: Sequence[str], number: int, told: Told) -> list[float | None]:
    if isinstance(row, list):
        if len(row) != len(columns):
            told.add(number, None, f"{len(row)} values", f"write {len(columns)}, in declared order")
            return []
        named: dict[str, Any] = dict(zip(columns, row, strict=True))
    elif isinstance(row, dict):
        named = row
        _check_names(row, columns, number, told)
        for name in columns:
            if name not in row:
                told.add(
                    number, name, f"no value of {name!r}", "write it, null where it is missing"
                )
    else:
        told.add(number, None, show(row), "write an object or a list with a value a column")
        return []
    for name, value in named.items():
        if name in columns:
            _check_number(name, name, value, number, told)
    return [named.get(name) for name in columns]


def _keyed(model: "ServedModel", rows: list[Any], *, single: bool, partial: bool) -> Asked:
    names = {field.name for field in model.schema.fields}
    brings = [isinstance(row, dict) and FEATURES in row for row in rows]
    if FEATURES in names or not any(brings):  # a field of that name is a field
        return Asked(model, rows, single=single)
    columns, told = model.predictor.columns, Told(partial=partial)
    given = [
        _given(row[FEATURES], columns, number, told) if has else {}
        for number, (row, has) in enumerate(zip(rows, brings, strict=True))
    ]
    fields = [
        {name: value for name, value in row.items() if name != FEATURES} if has else row
        for row, has in zip(rows, brings, strict=True)
    ]
    refused = told.all()
    good = [number for number in range(len(rows)) if number not in refused]
    if all(len(given[number]) == len(columns) for number in good):
        _check_beside(model, fields, good, told)
        raw = [[_null(values.get(name)) for name in columns] for values in given]
        return Asked(model, raw, raw=True, single=single, refused=told.all())
    return Asked(model, fields, given=given, single=single, refused=refused)


def _given(features: Any, columns: Sequence[str], number: int, told: Told) -> Given:
    if not isinstance(features, dict):
        told.add(number, FEATURES, f"'features' = {show(features)}", "write {column: value, ...}")
        return {}
    _check_names(features, columns, number, told)
    for name, value in features.items():
        if name in columns:
            _check_number(f"features.{name}", name, value, number, told)
    return {name: math.nan if value is None else value for name, value in features.items()}


def _check_beside(
    model: "ServedModel", fields: Sequence[dict[str, Any]], good: Sequence[int], told: Told
) -> None:
    """Rows that bring every column need no fields; those that they bring must fit all the same."""
    known = {field.name: field for field in model.schema.fields}
    for number in good:
        _check_names(fields[number], list(known), number, told)
        for name, value in fields[number].items():
            if name in known and (wrong := known[name].problem(value)):
                cut, remedy = show(value), f"write {known[name].expected}"
                told.add(number, name, f"{name} = {cut}, which {wrong}", remedy, cut)


def _check_names(row: Iterable[str], known: Sequence[str], number: int, told: Told) -> None:
    for name in row:
        if name not in known and not told.is_enough(number):
            near = near_name(name, tuple(known))
            hint = f"did you mean {near!r}?" if near else "see /api/v1/model/info"
            told.add(number, name, f"an unknown name {show(name)}", hint)


def _check_number(shown: str, name: str, value: Any, number: int, told: Told) -> None:
    if value is None or (type(value) in (int, float) and -FLOAT32 <= value <= FLOAT32):
        return
    cut = show(value)
    if type(value) not in (int, float):
        told.add(number, name, f"{shown} = {cut}, {type_word(value)}", _NUMBER, cut)
    else:
        told.add(number, name, f"{shown} = {cut}, beyond a 32-bit float", _NUMBER, cut)


def _null(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _refused(message: str, *, field: str | None = None) -> RequestRefused:
    return FieldsRefused([Problem(message, field=field)])
