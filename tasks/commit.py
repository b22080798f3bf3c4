"""The commit protocol of batch prediction: nothing lost, nothing doubled, nothing half-seen.

A run is named by what it computes (rows, bundle, options), so a repeated run finds itself done::

    predictions/<model>/<run>/
        part-<shard>-<hash>.parquet       the shard's rows, named by what they hold
        rejected-<shard>-<hash>.parquet   the rows that could not be scored, with the reason
        records/<shard>.json              what the shard's parts are: written after them
        manifest.json                     every shard: created exclusively, last, once

Readers open the manifest and nothing else. A killed run resumes from the records whose parts still
match; a part without a record, or a record without a manifest, is invisible.
"""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from headrace import storage
from headrace.errors import HeadraceError
from headrace.names import checked_name
from headrace.spec import Part


class CommitRefused(HeadraceError):
    """A run whose parts do not add up to its input."""

    def __init__(self, folder: str, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(
            f"{folder} is not committed: {reason}. Nothing of it is visible to readers; "
            "run the same command again to resume."
        )


class NotCommitted(HeadraceError):
    """Predictions that were asked for and never committed, or damaged since."""

    def __init__(self, folder: str, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(f"{folder} cannot be read: {reason}.")


class File(Part):
    """One immutable file of a run."""

    name: str
    rows: int
    sha256: str


class ShardRecord(Part):
    """What one shard became."""

    shard: str
    rows: int
    """Rows in: the predicted and the rejected together."""
    predicted: File
    rejected: File | None


class Manifest(Part):
    """A committed run."""

    run: str
    model: str
    bundle: str
    rows: int
    predicted: int
    rejected: int
    shards: tuple[ShardRecord, ...]


def run_folder(root: str, model: str, run: str) -> str:
    """Where a run's files lie."""
    return f"{root}/predictions/{checked_name('model', model)}/{checked_name('run', run)}"


def write_shard(folder: str, shard: str, *, predicted: pa.Table, rejected: pa.Table) -> ShardRecord:
    """Write a shard's parts, then its record. Safe to run twice and at once: equal bytes."""
    record = ShardRecord(
        shard=shard,
        rows=predicted.num_rows + rejected.num_rows,
        predicted=_write_part(folder, f"part-{shard}", predicted),
        rejected=_write_part(folder, f"rejected-{shard}", rejected) if rejected.num_rows else None,
    )
    storage.write_atomic(_record_uri(folder, shard), _document(record))
    return record


def finished_shard(folder: str, shard: str) -> ShardRecord | None:
    """The record of a shard whose parts are whole, else None: it is to be done (again)."""
    try:
        record = ShardRecord.model_validate_json(storage.read_bytes(_record_uri(folder, shard)))
    except (FileNotFoundError, ValidationError):
        return None
    files = [record.predicted, *([record.rejected] if record.rejected else [])]
    return record if all(_is_whole(folder, file) for file in files) else None


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of a committed run, or None if it is not committed."""
    try:
        return Manifest.model_validate_json(storage.read_bytes(f"{folder}/manifest.json"))
    except FileNotFoundError:
        return None


def commit(
    folder: str, *, run: str, model: str, bundle: str, rows: int, shards: Sequence[ShardRecord]
) -> Manifest:
    """Make a run visible, once; a run that another process committed first is the same run.

    Raises:
        CommitRefused: if rows in are not rows predicted plus rows rejected, or another manifest
            stands there already.
    """
    predicted = sum(record.predicted.rows for record in shards)
    rejected = sum(record.rejected.rows for record in shards if record.rejected)
    if predicted + rejected != rows:
        raise CommitRefused(
            folder, f"{rows} rows went in, {predicted} predicted + {rejected} rejected came out"
        )
    manifest = Manifest(
        run=run,
        model=model,
        bundle=bundle,
        rows=rows,
        predicted=predicted,
        rejected=rejected,
        shards=tuple(shards),
    )
    if not storage.create_exclusive(f"{folder}/manifest.json", _document(manifest)):
        raise CommitRefused(folder, "another manifest stands there already")
    return manifest


def read_predictions(folder: str, *, rejected: bool = False) -> pa.Table:
    """The committed rows of a run, in the order of its input, each part checked by its hash.

    Raises:
        NotCommitted: if there is no manifest, or a part is missing or changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise NotCommitted(folder, "it has no manifest.json; the run did not finish")
    files = [s.rejected if rejected else s.predicted for s in manifest.shards]
    tables = [_read_part(folder, file) for file in files if file]
    return pa.concat_tables(tables) if tables else pa.table({})


def _write_part(folder: str, stem: str, table: pa.Table) -> File:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = bytes(sink.getvalue())
    digest = storage.sha256(data)
    name = f"{stem}-{digest[:16]}.parquet"
    storage.write_atomic(f"{folder}/{name}", data)
    return File(name=name, rows=table.num_rows, sha256=digest)


def _read_part(folder: str, file: File) -> pa.Table:
    try:
        data = storage.read_bytes(f"{folder}/{file.name}")
    except FileNotFoundError as error:
        raise NotCommitted(folder, f"{file.name} is missing") from error
    if storage.sha256(data) != file.sha256:
        raise NotCommitted(folder, f"{file.name} was changed after it was committed")
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


def _is_whole(folder: str, file: File) -> bool:
    try:
        return storage.sha256(storage.read_bytes(f"{folder}/{file.name}")) == file.sha256
    except FileNotFoundError:
        return False


def _record_uri(folder: str, shard: str) -> str:
    return f"{folder}/records/{checked_name('shard', shard)}.json"


def _document(part: Part) -> bytes:
    return json.dumps(part.model_dump(mode="json"), sort_keys=True, indent=1).encode()
