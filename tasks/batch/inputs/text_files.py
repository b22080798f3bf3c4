"""Many CSV or JSON lines files as one dataset: one header, and types inferred once.

For small jobs. Each file is read once here, to count its rows and to refuse what is too large;
one file is one piece.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from headrace import storage
from headrace.backends.found import Found
from tasks.batch.inputs import text
from tasks.batch.inputs.dataset import Dataset, Format, InputFile, Reading
from tasks.batch.inputs.errors import InputBroken
from tasks.batch.inputs.listing import partition_fields
from tasks.batch.inputs.parquet_files import BadFiles, Listed, Sieve
from tasks.batch.inputs.values import type_of_json, type_of_texts

LIMIT_BYTES = 256 << 20
"""How much text, unpacked, a file may hold."""
_SAMPLE_ROWS = 10_000


def open_files(
    uri: str,
    listed: Iterable[Listed],
    format_: Format,
    *,
    bad_files: BadFiles,
    limit_bytes: int,
    types: Mapping[str, pa.DataType] | None = None,
) -> Dataset:
    """Return text files as a dataset.

    Args:
        uri: what was asked for.
        listed: the files.
        format_: ``csv`` or ``jsonl``.
        bad_files: ``stop`` at the first bad one, or ``skip`` and name them.
        limit_bytes: how much text a file may hold, unpacked.
        types: of columns whose type is known; the others' are inferred from the first rows.

    Raises:
        InputBroken: naming a file without a header or with another one than the first.
        InputTooLarge: naming a file beyond the limit.
    """
    sieve = Sieve(bad_files)
    scanned: list[_Scanned] = []
    for one in sorted(listed, key=lambda one: one.uri):
        with sieve:
            found = _scan(one, format_, limit_bytes)
            if scanned and format_ == "csv" and set(found.sample) != set(scanned[0].sample):
                raise InputBroken(
                    one.uri,
                    f"its header {list(found.sample)} differs from {list(scanned[0].sample)} in "
                    f"{scanned[0].listed.uri}",
                )
            scanned.append(found)
    schema = _schema(scanned, format_, types or {})
    files = tuple(_input_file(one, format_, schema) for one in scanned)
    return Dataset(uri, schema, files, tuple(sieve.quarantined))


class _Scanned:
    """A file that was read through once: how many rows, and the first of them."""

    def __init__(self, listed: Listed, found: Found) -> None:
        self.listed, self.found = listed, found
        self.rows = 0
        self.sample: dict[str, list[Any]] = {}


def _scan(listed: Listed, format_: Format, limit_bytes: int) -> _Scanned:
    scanned = _Scanned(listed, listed.found or storage.find(listed.uri))
    batches = text.read_records(
        listed.uri, format_, (), batch_rows=_SAMPLE_ROWS, limit_bytes=limit_bytes
    )
    for records in batches:
        scanned.rows += records.rows
        scanned.sample = scanned.sample or {n: list(c) for n, c in records.columns.items()}
    if format_ == "csv" and not scanned.sample:
        raise InputBroken(listed.uri, "it has no header line")
    return scanned


def _schema(
    scanned: list[_Scanned], format_: Format, types: Mapping[str, pa.DataType]
) -> pa.Schema:
    infer = type_of_texts if format_ == "csv" else type_of_json
    samples: dict[str, list[Any]] = {}
    for one in scanned:
        for name, values in one.sample.items():
            known = samples.setdefault(name, [])
            known.extend(values[: max(0, _SAMPLE_ROWS - len(known))])
    fields = [pa.field(name, types.get(name) or infer(values)) for name, values in samples.items()]
    partition = partition_fields((one.listed.uri, one.listed.partition) for one in scanned)
    return pa.schema([*fields, *(f for f in partition if f.name not in samples)])


def _input_file(one: _Scanned, format_: Format, schema: pa.Schema) -> InputFile:
    partition = tuple(
        (name, value) for name, value in one.listed.partition if name not in one.sample
    )
    return InputFile(
        uri=one.listed.uri,
        format=format_,
        stamp=one.found.stamp,
        bytes=one.found.bytes,
        row_groups=(one.rows,),
        reading=Reading(columns=schema, partition=partition),
    )
