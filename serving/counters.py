"""Numbers that several processes count together, in files that each of them can read.

Each process counts in a file of its own, mapped into memory, so counting is an addition to a cell
of an array. Whoever is scraped reads the files of all processes of the server and adds them up. A
process holds a lock on its file while it lives; one that starts takes over the file of one that
has ended, and counts on where that stopped, so a total never falls.

A file is an array of float64 cells, and after it one line of JSON for each series: name, kind,
help, labels, the position of its first cell, and the edges of a histogram.
"""

import contextlib
import fcntl
import json
import mmap
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal

import numpy as np

from headrace.errors import HeadraceError

Kind = Literal["counter", "gauge", "lowest", "highest", "histogram"]
"""How the processes' values become one: they are added up; of ``lowest`` and ``highest``, gauges
that tell facts, the least and the greatest is told. Gauges of a process that has ended are left
out."""

_CELLS = 32_768
_LINES_AT = 64 + 8 * _CELLS
_BYTES = _LINES_AT + 4_194_304
_MAGIC = b"headrace-counters-1"
_USED_AT = 32  # where the number of bytes of lines that are whole stands


class CountersFull(HeadraceError):
    """More series than a file of counters has room for."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"there is no room to count {name!r}: a server has {_CELLS:,} cells. Give labels only "
            "values of which there are few."
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a file."""

    name: str
    kind: Kind
    told: str
    """What it counts, in words."""
    labels: tuple[tuple[str, str], ...]
    cell: int
    edges: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets; a last one without bound, and the sum, follow."""

    @property
    def cells(self) -> int:
        """How many cells it takes."""
        return len(self.edges) + 2 if self.kind == "histogram" else 1


class Count:
    """One number. One thread writes it: that of the event loop."""

    __slots__ = ("_base", "_cell", "_values")

    def __init__(self, values: np.ndarray, cell: int) -> None:
        self._values, self._cell = values, cell
        self._base = float(values[cell])

    def add(self, number: float) -> None:
        """Count ``number`` more."""
        self._values[self._cell] += number

    def put(self, number: float) -> None:
        """Be ``number``; for gauges."""
        self._values[self._cell] = number

    def reach(self, number: float) -> None:
        """Have counted ``number`` since this process began; for what counts by itself."""
        self._values[self._cell] = self._base + number


class Histogram:
    """How often numbers were in each bucket, and their sum."""

    __slots__ = ("_cell", "_edges", "_edges_array", "_values")

    def __init__(self, values: np.ndarray, cell: int, edges: tuple[float, ...]) -> None:
        self._values, self._cell = values, cell
        self._edges, self._edges_array = edges, np.array(edges)

    def add(self, number: float) -> None:
        """Take in one number."""
        values, cell = self._values, self._cell
        values[cell + bisect_left(self._edges, number)] += 1
        values[cell + len(self._edges) + 1] += number

    def add_all(self, numbers: Sequence[float]) -> None:
        """Take in many numbers at once."""
        if len(numbers) < 4:
            for number in numbers:
                self.add(number)
            return
        every = np.array(numbers)
        buckets = len(self._edges) + 1
        places = np.searchsorted(self._edges_array, every)
        values, cell = self._values, self._cell
        values[cell : cell + buckets] += np.bincount(places, minlength=buckets)
        values[cell + buckets] += every.sum()


class Counters:
    """The numbers of one server."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin to count.

        Args:
            folder: what the processes of the server share; None: there is one process only.
        """
        self._folder = folder
        self._file = None if folder is None else _own_file(folder)
        self._map = mmap.mmap(-1 if self._file is None else self._file.fileno(), _BYTES)
        if self._map[: len(_MAGIC)] != _MAGIC:
            self._map[: len(_MAGIC)] = _MAGIC
        self._values = np.frombuffer(self._map, np.float64, _CELLS, offset=64)
        self._series = {(s.name, s.labels): s for s in _lines(self._map)}
        self._placing = threading.Lock()
        self._made: dict[tuple[str, tuple[tuple[str, str], ...]], Count | Histogram] = {}
        self._next = max((s.cell + s.cells for s in self._series.values()), default=0)
        for series in self._series.values():
            if series.kind not in ("counter", "histogram"):
                self._values[series.cell] = np.nan  # a fact of the process that has ended

    def counter(self, name: str, told: str, /, **labels: str) -> Count:
        """A number that only grows; ``name`` ends in ``_total``."""
        return self._count(name, told, "counter", labels)

    def gauge(self, name: str, told: str, kind: Kind = "gauge", /, **labels: str) -> Count:
        """A number that may fall."""
        return self._count(name, told, kind, labels)

    def histogram(
        self, name: str, told: str, edges: Sequence[float], /, **labels: str
    ) -> Histogram:
        """Numbers by buckets, whose upper bounds are ``edges``, rising."""
        key = name, tuple(labels.items())
        made = self._made.get(key)
        if made is None:
            series = self._place(name, "histogram", told, key[1], tuple(edges))
            made = self._made[key] = Histogram(self._values, series.cell, series.edges)
        assert isinstance(made, Histogram)
        return made

    def all_series(self) -> Iterator[tuple[Series, np.ndarray]]:
        """Every series of every process of the server, with the values of its cells.

        Gauges of processes that have ended are left out.
        """
        yield from _read(self._map, lives=True)
        if self._folder is None or self._file is None:
            return
        own = Path(self._file.name).name
        for path in sorted(self._folder.glob("*.counters")):
            if path.name != own:
                yield from _read_file(path)

    def close(self) -> None:
        """Leave what was counted to the next process."""
        if self._file is not None:
            self._map.flush()
            self._file.close()

    def _count(self, name: str, told: str, kind: Kind, labels: dict[str, str]) -> Count:
        key = name, tuple(labels.items())
        made = self._made.get(key)
        if made is None:
            series = self._place(name, kind, told, key[1], ())
            if kind != "counter":
                self._values[series.cell] = 0.0
            made = self._made[key] = Count(self._values, series.cell)
        assert isinstance(made, Count)
        return made

    def _place(
        self,
        name: str,
        kind: Kind,
        told: str,
        labels: tuple[tuple[str, str], ...],
        edges: tuple[float, ...],
    ) -> Series:
        with self._placing:
            known = self._series.get((name, labels))
            if known is not None and (known.kind, known.edges) == (kind, edges):
                return known
            return self._append(name, kind, told, labels, edges)

    def _append(
        self,
        name: str,
        kind: Kind,
        told: str,
        labels: tuple[tuple[str, str], ...],
        edges: tuple[float, ...],
    ) -> Series:
        series = Series(name, kind, told, labels, self._next, edges)
        line = json.dumps([name, kind, told, labels, series.cell, edges]).encode() + b"\n"
        used = _used(self._map)
        if series.cell + series.cells > _CELLS or _LINES_AT + used + len(line) > _BYTES:
            raise CountersFull(name)
        self._map[_LINES_AT + used : _LINES_AT + used + len(line)] = line
        self._map[_USED_AT : _USED_AT + 8] = (used + len(line)).to_bytes(8, "little")
        self._next += series.cells
        self._series[name, labels] = series
        return series


def _own_file(folder: Path) -> FileIO:
    """A file that no living process has: one that was left behind, else a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.counters")):
        file = path.open("r+b", buffering=0)
        if _locked(file):
            return file
        file.close()
    number = 0
    while True:
        number += 1
        path = folder / f"{number:04}.counters"
        with contextlib.suppress(FileExistsError):
            file = path.open("x+b", buffering=0)
            if _locked(file):
                os.ftruncate(file.fileno(), _BYTES)  # holes: what is not counted takes no space
                return file
            file.close()


def _locked(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_file(path: Path) -> Iterator[tuple[Series, np.ndarray]]:
    with path.open("r+b", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != _BYTES:  # its process is about to make it
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            lives = False
            fcntl.flock(file, fcntl.LOCK_UN)
        except BlockingIOError:
            lives = True
        with mmap.mmap(file.fileno(), _BYTES, access=mmap.ACCESS_READ) as mapped:
            yield from _read(mapped, lives=lives)


def _read(mapped: mmap.mmap, *, lives: bool) -> Iterator[tuple[Series, np.ndarray]]:
    for series in _lines(mapped):
        if lives or series.kind in ("counter", "histogram"):
            begin = 64 + 8 * series.cell
            yield series, np.frombuffer(mapped[begin : begin + 8 * series.cells])


def _lines(mapped: mmap.mmap) -> list[Series]:
    lines = mapped[_LINES_AT : _LINES_AT + _used(mapped)].splitlines()
    return [
        Series(name, kind, told, tuple((n, v) for n, v in labels), cell, tuple(edges))
        for name, kind, told, labels, cell, edges in map(json.loads, lines)
    ]


def _used(mapped: mmap.mmap) -> int:
    return int.from_bytes(mapped[_USED_AT : _USED_AT + 8], "little")
