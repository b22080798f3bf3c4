"""How an "overwrite" job writes: fixed names, in place, and readers take what is there."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write(folder: str, pieces: int, rows: int) -> None:
    for piece in range(pieces):
        table = pa.table({"row": range(piece * rows, (piece + 1) * rows)})
        pq.write_table(table, Path(folder) / f"part-{piece:05}.parquet")


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
