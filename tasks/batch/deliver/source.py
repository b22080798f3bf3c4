"""The committed rows, part by part and batch by batch, each part checked before it is parsed."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace import storage
from tasks.batch.commit import Manifest
from tasks.batch.parts import File, PartRefused, part_uri

_BATCH_ROWS = 65_536


def committed_schema(manifest: Manifest, output: str) -> pa.Schema | None:
    """The columns of the predictions; None where no shard was scored."""
    for file in manifest.files():
        with _checked(output, file) as path:
            return pq.read_schema(path).remove_metadata()
    return None


def committed_batches(manifest: Manifest, output: str) -> Iterator[pa.RecordBatch]:
    """The predictions in the order of the input, in memory bounded by a batch.

    Raises:
        PartRefused: if a part is missing or was changed.
    """
    for file in manifest.files():
        if not file.rows:
            continue
        with _checked(output, file) as path:
            parquet = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
            with parquet:
                yield from parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)


@contextlib.contextmanager
def _checked(output: str, file: File) -> Iterator[Path]:
    uri = part_uri(output, file)
    try:
        with storage.local_copy(uri) as path:
            with path.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            if found != file.sha256:
                raise PartRefused(uri, "its SHA-256 is not the one that was committed")
            yield path
    except FileNotFoundError as error:
        raise PartRefused(uri, "it is missing") from error
