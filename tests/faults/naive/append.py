"""How an "append" job writes: a new name each time, and nothing that says what is done."""

import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write(folder: str, pieces: int, rows: int) -> None:
    for piece in range(pieces):
        table = pa.table({"row": range(piece * rows, (piece + 1) * rows)})
        pq.write_table(table, Path(folder) / f"part-{uuid.uuid4().hex}.parquet")


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
