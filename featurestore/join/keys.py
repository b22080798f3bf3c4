"""Entities as small integers: equal keys have equal numbers.

Strings are compared once, in Arrow's hash tables, and never again. Each table's key column is
hashed for itself; what the two tables then have to agree on are the few distinct values.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import check_columns, is_text
from headrace.errors import SchemaMismatch
from headrace.plan import JoinKey, ViewRead

_ARROW = {"STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64()}


class RowKeys:
    """The key columns of a table of rows, each hashed once for all the views that use it."""

    def __init__(self, rows: pa.Table, name: str = "rows") -> None:
        self._rows, self._name = rows, name
        self._hashed: dict[JoinKey, pa.DictionaryArray] = {}

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def hashed(self, key: JoinKey) -> pa.DictionaryArray:
        """The key's column: its distinct values and, for each row, which of them it has.

        Raises:
            SchemaMismatch: if the key is missing, or cannot be what its entity's type says.
        """
        if key not in self._hashed:
            self._hashed[key] = _hashed(self._rows, self._name, key)
        return self._hashed[key]

    def are_null(self, keys: tuple[JoinKey, ...]) -> np.ndarray:
        """Whether any of these keys is null, bool, shape (rows,)."""
        null = np.zeros(len(self), dtype=bool)
        for key in keys:
            indices = self.hashed(key).indices
            if indices.null_count:
                null |= indices.is_null().to_numpy(zero_copy_only=False)
        return null


@dataclass(frozen=True)
class EntityNumbers:
    """The entities of a view's values, numbered from 0 in the order in which they first appear."""

    keys: tuple[JoinKey, ...]
    distinct: tuple[pa.Array, ...]
    """The distinct values of each key."""
    pairs: tuple[pa.Array, ...]
    """int64, one for each key after the first: the pairs of (number so far, value) that exist."""
    entities: int

    @classmethod
    def of(cls, values: pa.Table, read: ViewRead) -> tuple["EntityNumbers", np.ndarray]:
        """Number the entities of ``values``; return also the number of each value.

        Returns:
            The numbering, and int32, shape (values,): -1 stands for a null in any key.

        Raises:
            SchemaMismatch: if a key is missing, or cannot be what its entity's type says.
        """
        hashed = RowKeys(values, read.table)
        columns = [hashed.hashed(key) for key in read.join_keys]
        distinct = tuple(column.dictionary for column in columns)
        if not columns:  # a view without entities: all values belong to one
            return cls((), (), (), 1), np.zeros(values.num_rows, dtype=np.int32)
        numbers = _numbers(columns[0].indices)
        pairs: list[pa.Array] = []
        for column in columns[1:]:
            paired = _paired(numbers, _numbers(column.indices), len(column.dictionary))
            found = paired.dictionary_encode()
            numbers, pairs = _numbers(found.indices), [*pairs, found.dictionary]
        entities = len(pairs[-1]) if pairs else len(distinct[0])
        return cls(read.join_keys, distinct, tuple(pairs), entities), numbers

    def of_rows(self, rows: RowKeys) -> np.ndarray:
        """The entity of each row, int32: -1 for a null key, and for one that has no values."""
        if not self.keys:
            return np.zeros(len(rows), dtype=np.int32)
        found = [
            _translated(rows.hashed(key), known)
            for key, known in zip(self.keys, self.distinct, strict=True)
        ]
        numbers = found[0]
        for more, known, pairs in zip(found[1:], self.distinct[1:], self.pairs, strict=True):
            paired = _paired(numbers, more, len(known))
            numbers = _numbers(pc.index_in(paired, value_set=pairs, skip_nulls=True))
        return numbers


def _hashed(table: pa.Table, name: str, key: JoinKey) -> pa.DictionaryArray:
    check_columns(name, table.schema, [key.name])
    column, wanted = table[key.name], _ARROW[key.dtype]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    same_kind = pa.types.is_integer if pa.types.is_integer(wanted) else is_text
    if not same_kind(kind) and not pa.types.is_null(kind):
        raise SchemaMismatch(name, [f"key {key.name} is {kind}, but must be {wanted}"])
    try:
        # A dictionary may name a value twice, so it is hashed like any other column.
        chunks = column.cast(wanted).dictionary_encode().chunks
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(name, [f"key {key.name} does not fit {wanted}: {error}"]) from error
    if not chunks:
        return pa.array([], pa.dictionary(pa.int32(), wanted))
    # Arrow encodes all chunks by one dictionary, so their indices can be put together as they are
    # (unify_dictionaries would hash it again for each chunk).
    dictionary = chunks[0].dictionary
    assert all(len(chunk.dictionary) == len(dictionary) for chunk in chunks)
    indices = pa.concat_arrays([chunk.indices for chunk in chunks])
    return pa.DictionaryArray.from_arrays(indices, dictionary)


def _numbers(indices: pa.Array) -> np.ndarray:
    if indices.null_count:
        indices = indices.fill_null(-1)
    return np.asarray(indices)


def _translated(column: pa.DictionaryArray, known: pa.Array) -> np.ndarray:
    """The place in ``known`` of each row's value; -1: it is null, or not there."""
    places = _numbers(pc.index_in(column.dictionary, value_set=known))
    # One more place, at the end, for the -1 of a null.
    return np.asarray(np.append(places, np.int32(-1))[_numbers(column.indices)])


def _paired(so_far: np.ndarray, codes: np.ndarray, width: int) -> pa.Array:
    # Both are numbers of rows, so their product fits 64 bits.
    pairs = so_far.astype(np.int64) * width + codes
    unknown = (so_far < 0) | (codes < 0)
    return pa.array(pairs, mask=unknown if unknown.any() else None)
