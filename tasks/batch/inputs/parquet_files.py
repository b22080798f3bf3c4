"""Many Parquet files as one dataset: footers read side by side, schemas held against each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pyarrow as pa

from headrace import storage
from headrace.backends.found import Found
from tasks.batch.inputs.agreement import agreed_schema, disagreement, fits, plain_schema
from tasks.batch.inputs.dataset import Dataset, InputFile, Quarantined, Reading
from tasks.batch.inputs.errors import InputBroken
from tasks.batch.inputs.listing import Partition, partition_fields
from tasks.batch.inputs.parquet import Footer, iterate, read_footer

BadFiles = Literal["stop", "skip"]
Renames = tuple[tuple[str, str], ...]
"""(name in the table, name in the file) of the columns whose names differ."""
_AT_ONCE = 16  # each waits for the network, not for the processor
_PROVED_ROWS = 65_536
_PROVED_AT_ONCE = 4  # each decodes pages, which Arrow does beside Python


@dataclass(frozen=True)
class Listed:
    """A file that a folder or a table's log names."""

    uri: str
    partition: Partition = ()
    found: Found | None = None
    """Its size and stamp, where the listing told them."""


@dataclass(frozen=True)
class TableColumns:
    """What a table says of its columns; a file may lack some, and name them otherwise."""

    schema: pa.Schema
    """All columns, the partition's too."""
    renames: Callable[[pa.Schema], Renames] = lambda _: ()
    """The renames of a file, from its columns."""
    may_become: Callable[[pa.DataType, pa.DataType], bool] = fits
    """True if a file's type may be read as the table's."""


@dataclass(frozen=True)
class _Opened:
    listed: Listed
    found: Found
    footer: Footer


def open_files(
    uri: str,
    listed: Iterable[Listed],
    *,
    columns: Sequence[str] | None,
    bad_files: BadFiles,
    table: TableColumns | None = None,
) -> Dataset:
    """Return Parquet files as a dataset, in the order of their names.

    Args:
        uri: what was asked for.
        listed: the files.
        columns: which columns must agree; None: all.
        bad_files: ``stop`` at the first bad one, or ``skip`` and name them all. To name those whose
            pages are damaged, ``skip`` reads the columns of every file once more than ``stop``.
        table: the columns, where a table format says them; None: what most files have.

    Raises:
        InputBroken: naming a file, what is wrong with it, and the remedy.
        StorageFailed: if a place cannot be asked.
    """
    sieve = Sieve(bad_files)
    ordered = sorted(listed, key=lambda one: one.uri)
    opened = list(sieve.opened(ordered, columns=None if table else columns))
    if not opened:
        return Dataset(uri, pa.schema([]), (), tuple(sieve.quarantined))
    judge = _FromTable(table, columns) if table else _FromFiles(opened, columns)
    files = []
    for one in opened:
        with sieve:
            files.append(judge.file(one))
    return Dataset(uri, judge.schema, tuple(files), tuple(sieve.quarantined))


class _FromFiles:
    """A folder's files: what most of them have is what all must have."""

    def __init__(self, opened: Sequence[_Opened], columns: Sequence[str] | None) -> None:
        self._columns = columns
        schemas = [one.footer.schema for one in opened]
        self._agreed = agreed_schema(schemas, columns)
        self._example = (
            opened[schemas.index(self._agreed)].listed.uri
            if (self._agreed in schemas)
            else opened[0].listed.uri
        )
        partitions = partition_fields((one.listed.uri, one.listed.partition) for one in opened)
        self._partition = [f for f in partitions if f.name not in self._agreed.names]
        self.schema = pa.schema([*plain_schema(self._agreed), *self._partition])

    def file(self, one: _Opened) -> InputFile:
        wrong = disagreement(
            one.footer.schema, self._agreed, example=self._example, columns=self._columns
        )
        if wrong:
            raise InputBroken(one.listed.uri, wrong)
        kept = {field.name for field in self._partition}
        partition = tuple((name, value) for name, value in one.listed.partition if name in kept)
        return _input_file(one, Reading(columns=self.schema, partition=partition))


class _FromTable:
    """A table's files: its metadata says which columns there are, and what a file calls them."""

    def __init__(self, table: TableColumns, columns: Sequence[str] | None) -> None:
        self._table, self._columns = table, columns
        self.schema = plain_schema(table.schema)

    def file(self, one: _Opened) -> InputFile:
        renames = self._table.renames(one.footer.schema)
        self._check_types(one, dict(renames))
        reading = Reading(
            columns=self.schema,
            partition=one.listed.partition,
            renamed=renames,
            fills_missing=True,
        )
        return _input_file(one, reading)

    def _check_types(self, one: _Opened, renames: dict[str, str]) -> None:
        has = one.footer.schema
        partition = {name for name, _ in one.listed.partition}
        for field in self.schema:
            name = renames.get(field.name, field.name)
            asked = self._columns is None or field.name in self._columns
            if not asked or field.name in partition or name not in has.names:
                continue
            if not self._table.may_become(has.field(name).type, field.type):
                raise InputBroken(
                    one.listed.uri,
                    f"column {field.name} is {has.field(name).type}, but {field.type} in its table",
                )


class Sieve:
    """Lets good files through; at a bad one it stops, or writes it down and goes on."""

    def __init__(self, bad_files: BadFiles) -> None:
        self._skips = bad_files == "skip"
        self.quarantined: list[Quarantined] = []

    def opened(
        self, listed: Sequence[Listed], *, columns: Sequence[str] | None
    ) -> Iterator[_Opened]:
        """The good files with their footers; many are looked at together."""
        look = partial(_open_and_prove, columns=columns) if self._skips else _open
        is_fast = not self._skips and bool(listed) and storage.is_local(listed[0].uri)
        threads = 1 if is_fast else _PROVED_AT_ONCE if self._skips else _AT_ONCE
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(look, one) for one in listed]:
                with self:
                    yield future.result()

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, InputBroken) or not self._skips:
            return False
        self.quarantined.append(Quarantined(uri=error.uri, reason=error.reason))
        return True


def _open(listed: Listed) -> _Opened:
    try:
        found = listed.found or storage.find(listed.uri)
        return _Opened(listed, found, read_footer(listed.uri, found.bytes))
    except FileNotFoundError as error:
        raise InputBroken(listed.uri, "it is named by the table, and not there") from error


def _open_and_prove(listed: Listed, *, columns: Sequence[str] | None) -> _Opened:
    """Open a file and read what will be read of it, so that damage is known before the plan is."""
    opened = _open(listed)
    names = opened.footer.schema.names if columns is None else columns
    groups = range(len(opened.footer.row_groups))
    for _ in iterate(listed.uri, groups, list(names), batch_rows=_PROVED_ROWS):
        pass
    return opened


def _input_file(one: _Opened, reading: Reading) -> InputFile:
    return InputFile(
        uri=one.listed.uri,
        format="parquet",
        stamp=one.found.stamp,
        bytes=one.found.bytes,
        row_groups=one.footer.row_groups,
        reading=reading,
    )
