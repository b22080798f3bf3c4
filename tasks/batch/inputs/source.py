"""A file of any place, open for Arrow to read and seek.

A file that is not too large is brought here whole, once a process and version: S3 keeps a checksum
of a whole object, not of its ranges, so only then is every byte proved. Of a larger file the ranges
that are needed are asked for, of the version that was planned; the encrypted connection and the
file's own page checksums guard them.
"""

import atexit
import contextlib
import io
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace import storage
from headrace.backends.found import Found

COPIED_BYTES = 256 << 20
"""A file of another place is copied here up to this size."""
_KEPT_BYTES = 1 << 30


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Any]:
    """The file at ``uri``.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read.
    """
    if storage.is_local(uri):
        with pa.OSFile(uri) as file:
            yield file
        return
    found = storage.find(uri)
    if found.bytes > COPIED_BYTES:
        with pa.PythonFile(_Ranges(found), mode="r") as file:
            yield file
        return
    with _copies.copy(found) as path, pa.OSFile(str(path)) as file:
        yield file


class _Ranges(io.RawIOBase):
    """A file that is elsewhere, read range by range."""

    def __init__(self, found: Found) -> None:
        self._found, self._position = found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.bytes}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._found.bytes if size < 0 else min(self._position + size, self._found.bytes)
        if stop <= self._position:
            return b""
        data = storage.read_range(self._found.uri, self._position, stop, version=self._found.stamp)
        self._position = stop
        return data

    def size(self) -> int:
        return self._found.bytes


class _Copies:
    """Copies of files, the least recently used removed when there are too many bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[Found, Path] = OrderedDict()
        self._used: dict[Path, int] = {}
        self._folder: Path | None = None

    @contextlib.contextmanager
    def copy(self, found: Found) -> Iterator[Path]:
        """A local copy, kept while the block runs and for as long as there is room."""
        with self._lock:  # held while copying: the others mostly wait for the same file
            path = self._copies.get(found) or self._fetch(found)
            self._copies.move_to_end(found)
            self._used[path] = self._used.get(path, 0) + 1
        try:
            yield path
        finally:
            with self._lock:
                self._used[path] -= 1
                self._make_room()

    def _fetch(self, found: Found) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="headrace-inputs-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / storage.sha256(f"{found.uri} {found.stamp}".encode())
        with storage.local_copy(found.uri) as copy:
            shutil.move(copy, path)
        self._copies[found] = path
        return path

    def _make_room(self) -> None:
        total = sum(found.bytes for found in self._copies)
        for found, path in list(self._copies.items()):
            if total <= _KEPT_BYTES:
                return
            if not self._used[path]:
                del self._copies[found], self._used[path]
                path.unlink(missing_ok=True)
                total -= found.bytes


_copies = _Copies()
