"""Bytes in and out of a folder or any fsspec URL: whole, or not at all.

A URI is a path of this machine (``/data/x``) or an fsspec URL (``s3://bucket/x``). Nothing here
opens a final name for writing: bytes are complete before they become visible, so a reader never
meets half a file and an exception publishes nothing.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.errors import DiskFull, StorageFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, a quota, a limit on file size
_TEMPORARY = ".writing-"  # what a killed writer may leave behind; no reader looks at it


def is_local(uri: str) -> bool:
    """True for a path of this machine."""
    return "://" not in uri


def sha256(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_bytes(uri: str) -> bytes:
    """Return everything at ``uri``.

    Raises:
        FileNotFoundError: if nothing is there; "not there" and "could not ask" differ.
        StorageFailed: if it cannot be read.
    """
    with _naming("read", uri):
        return Path(uri).read_bytes() if is_local(uri) else _filesystem(uri).cat_file(uri)


def sha256_of(uri: str) -> str:
    """The SHA-256 of the file at ``uri`` in hexadecimal digits, read in bounded memory.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read.
    """
    with _naming("read", uri), _opened(uri) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists(uri: str) -> bool:
    """True if something is at ``uri``."""
    with _naming("look for", uri):
        if not is_local(uri):
            return bool(_filesystem(uri).exists(uri))
        try:
            Path(uri).stat()  # Path.exists() would call a path below a file "not there"
        except FileNotFoundError:
            return False
        return True


def list_names(uri: str) -> list[str]:
    """The sorted names directly below ``uri``; empty if it is not there."""
    with _naming("list", uri):
        if is_local(uri):
            try:
                names = [path.name for path in Path(uri).iterdir()]
            except FileNotFoundError:  # a path below a file is a mistake, and is told as one
                return []
            return sorted(name for name in names if not name.startswith(_TEMPORARY))
        filesystem = _filesystem(uri)
        filesystem.invalidate_cache()  # others write here too, and a listing is asked to know it
        if not filesystem.exists(uri):
            return []
        return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in filesystem.ls(uri, detail=False))


def stamp(uri: str) -> str:
    """What changes whenever the file at ``uri`` is written: its size and time, or its ETag.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be looked at.
    """
    with _naming("look at", uri):
        if is_local(uri):
            found = Path(uri).stat()
            return f"{found.st_size} {found.st_mtime_ns}"
        filesystem = _filesystem(uri)
        filesystem.invalidate_cache()
        info = filesystem.info(uri)
        changes = ("ETag", "etag", "LastModified", "mtime", "md5Hash", "generation", "created")
        return " ".join(str(info[name]) for name in ("size", *changes) if name in info)


def write_atomic(uri: str, data: bytes, *, durable: bool = True) -> None:
    """Put ``data`` at ``uri``, replacing what was there: readers see the old or the new.

    Args:
        uri: where.
        data: what.
        durable: wait until a local disk has it. Without, a power cut may leave an empty or broken
            file: for what carries a checksum of its own and can be made again.
    """
    with _naming("write", uri):
        if not is_local(uri):
            _filesystem(uri).pipe_file(uri, data)
            return
        with _temporary_beside(Path(uri), data, durable=durable) as temporary:
            Path(temporary).replace(uri)
        if durable:
            _sync_folder(Path(uri).parent)


@contextlib.contextmanager
def written_whole(uri: str) -> Iterator[Path]:
    """A file to fill, for data too large for ``write_atomic``: it appears at ``uri`` at the end.

    If the block fails, nothing is written.
    """
    with _naming("write", uri):
        if not is_local(uri):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "data"
                yield path
                _filesystem(uri).put_file(str(path), uri)
            return
        with _temporary_beside(Path(uri), b"") as temporary:
            yield Path(temporary)
            with Path(temporary).open("rb") as file:
                os.fsync(file.fileno())
            Path(temporary).replace(uri)
        _sync_folder(Path(uri).parent)


def remove(uri: str) -> None:
    """Remove what is at ``uri``; nothing there is fine."""
    with _naming("remove", uri), contextlib.suppress(FileNotFoundError):
        if is_local(uri):
            Path(uri).unlink()
        else:
            _filesystem(uri).rm_file(uri)


def remove_unfinished(uri: str) -> None:
    """Remove what killed writers left in a local folder. Whoever writes there now fails."""
    if is_local(uri):
        with _naming("remove unfinished files in", uri):
            for path in Path(uri).glob(f"{_TEMPORARY}*"):
                path.unlink(missing_ok=True)


class Unnamed:
    """A file that is being filled, and that readers cannot see yet."""

    def __init__(self, folder: str, path: Path) -> None:
        self._folder, self.path = folder, path

    def publish(self, name: str) -> None:
        """Make the file appear as ``name``, whole. Its name is durable after ``sync_folder``."""
        uri = f"{self._folder}/{name}"
        with _naming("write", uri):
            if not is_local(uri):
                _filesystem(uri).put_file(str(self.path), uri)
                return
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self.path.replace(uri)


@contextlib.contextmanager
def unnamed_file(folder: str) -> Iterator[Unnamed]:
    """A file to fill whose name depends on what it will hold; unpublished, it vanishes.

    Args:
        folder: where it will appear; on the same file system if that is local.
    """
    if is_local(folder):
        with (
            _naming("write", folder),
            _temporary_beside(Path(folder) / "unnamed", b"", durable=False) as temporary,
        ):
            yield Unnamed(folder, Path(temporary))
        return
    with _naming("write", tempfile.gettempdir()), tempfile.TemporaryDirectory() as beside:
        yield Unnamed(folder, Path(beside) / "data")


def sync_folder(uri: str) -> None:
    """Make the names in a local folder durable; an object store's are already."""
    if is_local(uri):
        with _naming("write", uri):
            _sync_folder(Path(uri))


def create_exclusive(uri: str, data: bytes) -> bool:
    """Put ``data`` at ``uri`` unless something is there; True if the bytes there are ours.

    A store may execute a write and lose the reply, so a refusal is read back and compared before
    it is believed.
    """
    with _naming("write", uri):
        try:
            if is_local(uri):
                with _temporary_beside(Path(uri), data) as temporary:
                    os.link(temporary, uri)  # fails where the name is taken, unlike rename
                _sync_folder(Path(uri).parent)
            else:
                _filesystem(uri).pipe_file(uri, data, mode="create")
        except FileExistsError:
            return read_bytes(uri) == data
        return True


def _opened(uri: str) -> Any:
    return Path(uri).open("rb") if is_local(uri) else _filesystem(uri).open(uri, "rb")


def _filesystem(uri: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(uri)[0]


@contextlib.contextmanager
def _naming(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(action, uri, error.strerror) from error
        raise StorageFailed(action, uri, error.strerror or error) from error


@contextlib.contextmanager
def _temporary_beside(path: Path, data: bytes, *, durable: bool = True) -> Iterator[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StorageFailed("make the folder", str(path.parent), "a file is in the way") from error
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once the folder that holds the name is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
