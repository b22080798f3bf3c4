"""What a batch writes: parts, and for each shard a record of its parts, written after them.

::

    <output>/
      parts/part-<shard>-<hash>.parquet       a shard's rows
      parts/rejected-<shard>-<hash>.parquet   its rows that could not be scored, with the reason
      shards/<shard>.json                     its record: sealed, written after the parts

A shard is named by what it is made of, so the runs of an output share its shards: whoever needs a
shard that is recorded, and whose parts are whole, need not score it. Nothing here is seen by
readers before a manifest names it (``commit.py``).
"""

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import pyarrow as pa

from headrace import storage
from headrace.names import checked_name
from headrace.sealed import Damaged, seal, unseal
from headrace.spec import Part
from tasks.batch.parts import File, PartWriter, is_whole

_AT_ONCE = 8  # records and parts looked at together; on S3 each look is a trip


class ShardRecord(Part):
    """What one shard became."""

    shard: str
    rows: int
    """Rows in: the predicted and the rejected together."""
    predicted: File
    rejected: File | None

    @property
    def files(self) -> tuple[File, ...]:
        """Its parts."""
        return (self.predicted, self.rejected) if self.rejected else (self.predicted,)


class ShardWriter:
    """Writes a shard batch by batch, in bounded memory; nothing of it appears before its end.

    >>> import tempfile
    >>> output = tempfile.mkdtemp()
    >>> with ShardWriter(output, "0a1b") as writer:
    ...     writer.add(predicted=pa.table({"row": [0, 1], "prediction": [0.5, 0.25]}))
    >>> writer.record.rows, finished_shard(output, "0a1b") == writer.record
    (2, True)
    """

    def __init__(self, output: str, shard: str) -> None:
        self.record: ShardRecord
        """What was written; there once the block has ended."""
        self._output, self._shard = output, checked_name("shard", shard)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._predicted = opening.enter_context(PartWriter(self._output, f"part-{self._shard}"))
            self._rejected = opening.enter_context(
                PartWriter(self._output, f"rejected-{self._shard}")
            )
            self._open = opening.pop_all()
        return self

    def add(self, *, predicted: pa.Table, rejected: pa.Table | None = None) -> None:
        """Append a batch: the rows that were scored, and those that could not be.

        Raises:
            SchemaMismatch: if the columns are not those of the batches before.
            DiskFull: if there is no room.
        """
        self._predicted.add(predicted)
        if rejected is not None and rejected.num_rows:
            self._rejected.add(rejected)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if kind is None:
                self._publish()

    def _publish(self) -> None:
        # Both are complete before one appears: what can go wrong has gone wrong by then.
        predicted = self._predicted.finish()
        rejected = self._rejected.finish() if self._rejected.rows else None
        self._predicted.publish(predicted)
        if rejected:
            self._rejected.publish(rejected)
        record = ShardRecord(
            shard=self._shard,
            rows=predicted.rows + (rejected.rows if rejected else 0),
            predicted=predicted,
            rejected=rejected,
        )
        # Not made durable: what a power cut leaves of it is refused by its seal, and done again.
        storage.write_atomic(_record_uri(self._output, self._shard), seal(record), durable=False)
        self.record = record


def write_shard(
    output: str, shard: str, *, predicted: pa.Table, rejected: pa.Table | None = None
) -> ShardRecord:
    """Write a shard that is in memory. Safe to run twice and at once: equal rows, equal bytes."""
    with ShardWriter(output, shard) as writer:
        writer.add(predicted=predicted, rejected=rejected)
    return writer.record


def recorded_shards(output: str) -> frozenset[str]:
    """The shards that have a record, whole or not. Costs one listing, however many there are."""
    names = storage.list_names(f"{output}/shards")
    return frozenset(name.removesuffix(".json") for name in names if name.endswith(".json"))


def finished_shard(output: str, shard: str) -> ShardRecord | None:
    """The record of a shard whose parts are whole, else None: it is to be done (again)."""
    uri = _record_uri(output, shard)
    try:
        record = unseal(storage.read_bytes(uri), ShardRecord, uri=uri)
    except (FileNotFoundError, Damaged):
        return None
    return record if all(is_whole(output, file) for file in record.files) else None


def finished_shards(output: str, shards: Iterable[str]) -> dict[str, ShardRecord]:
    """Which of ``shards`` are finished, and their records: one listing, then only what is there."""
    recorded = recorded_shards(output)
    candidates = [shard for shard in shards if shard in recorded]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = pool.map(lambda shard: finished_shard(output, shard), candidates)
        return {record.shard: record for record in found if record}


def _record_uri(output: str, shard: str) -> str:
    return f"{output}/shards/{checked_name('shard', shard)}.json"
