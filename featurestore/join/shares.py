"""``EntityShare``: one part of all entities, so that a view too large for one memory can be joined.

Which part an entity is of depends on its key's values alone: rows and values of one entity always
meet, on whatever machine.
"""

import zlib

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from featurestore.join.keys import RowKeys
from headrace.plan import JoinKey, ViewRead
from headrace.spec import Part


class EntityShare(Part):
    """The entities of part ``number`` when they are dealt into ``of`` parts."""

    number: int = Field(0, ge=0)
    of: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "EntityShare":
        if self.number >= self.of:
            raise ValueError(f"number must be below {self.of}, not {self.number}")
        return self

    def places(self, keys: RowKeys, wanted: tuple[JoinKey, ...]) -> np.ndarray:
        """The positions of the rows whose entities are in the share, ascending."""
        mixed = np.zeros(len(keys), dtype=np.uint64)
        for key in wanted:
            mixed = mixed * np.uint64(1_000_003) + _hashes(keys.hashed(key))
        return np.flatnonzero(mixed % np.uint64(self.of) == self.number)

    def filter(self, table: pa.Table, read: ViewRead) -> pa.Table:
        """The rows of a view's table whose entities are in the share, in their order."""
        if self.of == 1:
            return table
        return table.take(pa.array(self.places(RowKeys(table, read.table), read.join_keys)))


EVERYONE = EntityShare()


def _hashes(column: pa.DictionaryArray) -> np.ndarray:
    distinct = [zlib.crc32(str(value).encode()) for value in column.dictionary.to_pylist()]
    of_null = [0]  # found at the end, for the -1 of a null
    indices = column.indices.fill_null(-1) if column.indices.null_count else column.indices
    return np.asarray(np.array(distinct + of_null, dtype=np.uint64)[np.asarray(indices)])
