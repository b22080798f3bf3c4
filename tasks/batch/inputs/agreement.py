"""One schema for all files of a dataset; a file that does not have it is named, and how.

What most files have counts (the first of them where two kinds are equally many): one odd file,
even the first, must not put all others in the wrong.
"""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

_REMEDY = "Write the file with the columns of the others, or leave it out (--bad-files skip)."


def agreed_schema(schemas: Sequence[pa.Schema], columns: Sequence[str] | None) -> pa.Schema:
    """The schema that most files have, as far as ``columns`` go; None: all columns."""
    shapes = [_shape(schema, columns) for schema in schemas]
    (most, _), *_ = Counter(shapes).most_common(1)
    agreed = schemas[shapes.index(most)].remove_metadata()
    for index, field in enumerate(agreed):
        if pt.is_null(field.type):
            agreed = agreed.set(index, field.with_type(_type_elsewhere(schemas, field.name)))
    return agreed


def disagreement(
    schema: pa.Schema, agreed: pa.Schema, *, example: str, columns: Sequence[str] | None
) -> str:
    """What is wrong with a file's schema, as a sentence; empty if nothing is.

    Args:
        schema: the file's columns.
        agreed: those of the dataset.
        example: the URI of a file that has them.
        columns: which ones matter; None: all, and none may be added.
    """
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        return f"columns {sorted(twice)} are there twice"
    asked = agreed.names if columns is None else [n for n in columns if n in agreed.names]
    lacking = [name for name in asked if name not in schema.names]
    added = [name for name in schema.names if name not in agreed.names]
    problems = []
    if lacking:
        hint = f" (it has {added} instead; renamed?)" if added else ""
        problems.append(f"column {', '.join(lacking)} is missing{hint}")
    elif added and columns is None:
        problems.append(f"column {', '.join(added)} is in no other file")
    problems += [
        f"column {name} is {schema.field(name).type}, but {agreed.field(name).type} in {example}"
        for name in asked
        if name in schema.names and not fits(schema.field(name).type, agreed.field(name).type)
    ]
    return "; ".join(problems)


def fits(have: pa.DataType, wanted: pa.DataType) -> bool:
    """True if values of one type are values of the other: only the encoding differs.

    A column without a single value is written as ``null`` by some writers, and fits every type.
    """
    return bool(pt.is_null(have) or plain(have) == plain(wanted))


def plain(type_: pa.DataType) -> pa.DataType:
    """A type without its encoding: no dictionary, no large or view variants."""
    if pt.is_dictionary(type_):
        return plain(type_.value_type)
    if pt.is_large_string(type_) or pt.is_string_view(type_):
        return pa.string()
    if pt.is_large_binary(type_) or pt.is_binary_view(type_):
        return pa.binary()
    return type_


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The columns with their plain types, without metadata."""
    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def _type_elsewhere(schemas: Sequence[pa.Schema], name: str) -> pa.DataType:
    # Where most files have no value in a column, the others say what its type is.
    types = [schema.field(name).type for schema in schemas if schema.names.count(name) == 1]
    typed = Counter(plain(type_) for type_ in types if not pt.is_null(type_))
    return typed.most_common(1)[0][0] if typed else pa.null()


def _shape(schema: pa.Schema, columns: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    names = schema.names if columns is None else [n for n in columns if n in schema.names]
    unique = [name for name in names if schema.get_field_index(name) >= 0]
    return tuple(sorted((name, str(plain(schema.field(name).type))) for name in unique))
