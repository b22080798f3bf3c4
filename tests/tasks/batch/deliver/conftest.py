"""A small committed output, to be delivered."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from tasks.batch.commit import Manifest, commit
from tasks.batch.lease import held
from tasks.batch.output import write_shard


def predictions(first: int, rows: int) -> pa.Table:
    names = ["JFK", 'quo"te', None, "", "new\nline"]
    moment = datetime(2013, 9, 1, tzinfo=UTC)
    scores = (np.arange(first, first + rows) / 7).astype(np.float32)
    return pa.table(
        {
            "row": np.arange(first, first + rows),
            "origin": pa.array([names[i % 5] for i in range(rows)], pa.string()),
            "at": pa.array([moment] * rows, pa.timestamp("us", "UTC")),
            "prediction": scores,
        }
    )


@pytest.fixture
def committed(tmp_path) -> Callable[..., tuple[Manifest, str]]:
    """Commits a run of two shards; ``scale`` makes another run of the same output."""

    def build(run: str = "run-1", rows: int = 100, output: str = "out") -> tuple[Manifest, str]:
        folder = str(tmp_path / output)
        shards = [
            write_shard(folder, f"{run}-{n}", predicted=predictions(n * rows, rows))
            for n in range(2)
        ]
        with held(folder, owner="test") as lease:
            manifest = commit(
                folder,
                lease=lease,
                run=run,
                model="m",
                bundle="b" * 64,
                input="x",
                rows=2 * rows,
                shards=shards,
            )
        return manifest, folder

    return build
