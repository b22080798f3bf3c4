"""Arrow's types as PostgreSQL has them, and whether a table's columns fit."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.types as pt

from tasks.batch.deliver.errors import DeliveryRefused

TEXTS = ("text", "character varying")
_BY_TYPE: dict[pa.DataType, tuple[str, ...]] = {
    pa.bool_(): ("boolean",),
    pa.int8(): ("smallint", "integer", "bigint", "numeric"),
    pa.uint8(): ("smallint", "integer", "bigint", "numeric"),
    pa.int16(): ("smallint", "integer", "bigint", "numeric"),
    pa.uint16(): ("integer", "bigint", "numeric"),
    pa.int32(): ("integer", "bigint", "numeric"),
    pa.uint32(): ("bigint", "numeric"),
    pa.int64(): ("bigint", "numeric"),
    pa.uint64(): ("numeric",),
    pa.float32(): ("real", "double precision"),
    pa.float64(): ("double precision",),
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.date32(): ("date",),
}


def types_of(to: str, schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The PostgreSQL types that may hold each column; the first is what a new table gets.

    Raises:
        DeliveryRefused: naming a column whose type has no counterpart.
    """
    return {field.name: _types(to, field) for field in schema}


def check_columns(
    to: str, wanted: Mapping[str, tuple[str, ...]], has: Mapping[str, tuple[str, bool]]
) -> None:
    """Refuse a table that cannot hold the rows.

    Args:
        to: the target, as it is shown.
        wanted: the types that may hold each column.
        has: type of each column of the table, and whether a row may leave it out.

    Raises:
        DeliveryRefused: naming each column, what it is and what it must be.
    """
    problems = [
        f"column {name} ({types[0]}) is missing"
        for name, types in wanted.items()
        if name not in has
    ]
    problems += [
        f"column {name} is {has[name][0]}, but must be {' or '.join(types)}"
        for name, types in wanted.items()
        if name in has and has[name][0] not in types
    ]
    problems += [
        f"column {name} may not be null, and the predictions have none"
        for name, (_, is_free) in has.items()
        if name not in wanted and not is_free
    ]
    if problems:
        remedy = "Alter the table, or name another one: a table that is missing is made."
        raise DeliveryRefused(to, "; ".join(problems), remedy)


def text_schema(schema: pa.Schema) -> pa.Schema:
    """The columns as Arrow can write them as text: dictionaries written out."""
    fields = [
        field.with_type(field.type.value_type) if pt.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def _types(to: str, field: pa.Field) -> tuple[str, ...]:
    type_ = field.type.value_type if pt.is_dictionary(field.type) else field.type
    if pt.is_timestamp(type_):
        return ("timestamp with time zone" if type_.tz else "timestamp without time zone",)
    if pt.is_decimal(type_):
        return ("numeric",)
    if type_ not in _BY_TYPE:
        remedy = "Leave it out with --keep."
        raise DeliveryRefused(to, f"column {field.name} is {type_}, which has no SQL type", remedy)
    return _BY_TYPE[type_]
