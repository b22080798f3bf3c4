"""Small files of every kind, and all that is read of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.batch.inputs import Dataset, cut, read_batches


def numbered(first: int, rows: int) -> pa.Table:
    """Rows that say who they are."""
    ids = np.arange(first, first + rows)
    return pa.table({"id": ids, "value": ids / 7, "name": [f"n{i % 5}" for i in ids]})


@pytest.fixture
def parquet(tmp_path) -> Callable[..., Path]:
    """Writes a Parquet file of numbered rows; page checksums are on."""

    def write(name: str, first: int, rows: int, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"row_group_size": 100, "write_page_checksum": True} | options
        pq.write_table(options.pop("table", numbered(first, rows)), path, **options)
        return path

    return write


@pytest.fixture
def read() -> Callable[..., list[Any]]:
    """Reads a column of a dataset through its pieces, and checks the positions on the way."""

    def values(dataset: Dataset, column: str = "id", *, rows_per_shard: int = 250) -> list[Any]:
        found: list[Any] = []
        pieces = cut(dataset, rows_per_shard)
        assert sum(piece.rows for piece in pieces) == dataset.rows
        for piece in pieces:
            expected = piece.first_row
            for position, batch in read_batches(piece, [column], batch_rows=64):
                assert position >= expected
                expected = position + batch.num_rows
                found += batch[column].to_pylist()
        return found

    return values
