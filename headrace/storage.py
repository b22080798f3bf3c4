"""Bytes in and out of a folder or any fsspec URL: whole, or not at all.

A URI is a path of this machine (``/data/x``) or an fsspec URL (``s3://bucket/x``). Nothing here
opens a final name for writing: bytes are complete before they become visible, so a reader never
meets half a file and an exception publishes nothing. What is special to S3 is in ``s3``: requests
that are repeated while they may heal, and bytes that are checked on the way up and down.
"""

import contextlib
import errno
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from headrace.errors import DiskFull, StorageFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, a quota, a limit on file size
_TEMPORARY = ".writing-"  # what a killed writer may leave behind; no reader looks at it


class Found(NamedTuple):
    """A file that is there."""

    uri: str
    bytes: int
    stamp: str
    """Changes whenever the file is written; see ``stamp``."""


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
        if is_local(uri):
            return Path(uri).read_bytes()
        return bytes(_s3().read(uri) if _is_s3(uri) else _filesystem(uri).cat_file(uri))


def read_range(uri: str, start: int, stop: int, *, version: str | None = None) -> bytes:
    """Return the bytes from ``start`` until ``stop``, all of them.

    Args:
        uri: the file.
        start: the first byte, from 0.
        stop: the byte after the last; not beyond the end.
        version: an ETag; on S3, another version is refused.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read, or ends before ``stop``.
    """
    with _naming("read", uri):
        if is_local(uri):
            with Path(uri).open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        elif _is_s3(uri):
            data = _s3().read_range(uri, start, stop, etag=version)
        else:
            data = _filesystem(uri).cat_file(uri, start=start, end=stop)
        if len(data) != stop - start:
            raise OSError(f"it ends before byte {stop}")
        return bytes(data)


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
        if _is_s3(uri):
            return _s3_exists(uri)
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
        if _is_s3(uri):
            return [name for name in _s3().names(uri) if not name.startswith(_TEMPORARY)]
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
    return find(uri).stamp


def find(uri: str) -> Found:
    """The file at ``uri``.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be looked at.
    """
    with _naming("look at", uri):
        if is_local(uri):
            return _found(Path(uri))
        if _is_s3(uri):
            head = _s3().head(uri)
            return Found(uri, head.bytes, head.stamp)
        filesystem = _filesystem(uri)
        filesystem.invalidate_cache()
        return _found_elsewhere(uri, filesystem.info(uri))


def find_below(uri: str) -> list[Found]:
    """Every file below the folder ``uri``, or the file itself, sorted; empty if nothing is there.

    What a writer has not finished is left out.
    """
    with _naming("list", uri):
        if is_local(uri):
            root = Path(uri)
            if root.is_file():
                return [_found(root)]
            folders = os.walk(root, onerror=_refused)
            paths = (Path(folder) / name for folder, _, names in folders for name in names)
            kept = (path for path in paths if not path.name.startswith(_TEMPORARY))
            return sorted(_found(path) for path in kept)
        if _is_s3(uri):
            found = [Found(name, head.bytes, head.stamp) for name, head in _s3().find(uri)]
            return found or _s3_file(uri)
        filesystem = _filesystem(uri)
        filesystem.invalidate_cache()
        return _all_found(filesystem, filesystem.find(uri, detail=True))


def find_matching(pattern: str) -> list[Found]:
    """Every file that fits a glob (``*``, ``?``, ``[a-c]``, ``**`` for any folders), sorted."""
    with _naming("list", pattern):
        if is_local(pattern):
            paths = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
            return sorted(_found(path) for path in paths if path.is_file())
        if _is_s3(pattern):
            fixed = pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)]
            below = _s3().find(fixed.rsplit("/", 1)[0])
            fits = _glob_of(pattern)
            return [Found(name, head.bytes, head.stamp) for name, head in below if fits(name)]
        filesystem = _filesystem(pattern)
        filesystem.invalidate_cache()
        return _all_found(filesystem, filesystem.glob(pattern, detail=True))


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
            _s3().write(uri, data) if _is_s3(uri) else _filesystem(uri).pipe_file(uri, data)
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
                if _is_s3(uri):
                    _s3().write_file(uri, path)
                else:
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
            elif _is_s3(uri):
                _s3().create(uri, data)
            else:
                _filesystem(uri).pipe_file(uri, data, mode="create")
        except (FileExistsError, ConnectionError) as error:
            return _is_ours(uri, data, error)
        return True


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The file at ``uri`` as one of this machine, whole and checked; itself, if it is local.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read.
    """
    if is_local(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        with _naming("read", uri):
            _s3().read_file(uri, path) if _is_s3(uri) else _filesystem(uri).get_file(uri, str(path))
        yield path


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Any]:
    """The file at ``uri``, open to read and seek, for Arrow."""
    import pyarrow as pa

    with local_copy(uri) as path, _naming("read", uri), pa.OSFile(str(path)) as file:
        yield file


def object_store_options(uri: str) -> dict[str, str]:
    """What delta-rs is told of the store at ``uri``; it reads credentials from AWS_* itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if not _is_s3(uri) or not endpoint:
        return {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:"))}


def iceberg_options(uri: str) -> dict[str, str]:
    """What pyiceberg is told of the store at ``uri``."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return {"s3.endpoint": endpoint} if _is_s3(uri) and endpoint else {}


def abort_uploads(uri: str) -> int:
    """End the uploads below ``uri`` that nobody will complete; how many there were.

    A writer that is killed between two parts leaves one behind: it is not visible, but is paid
    for. Call it while nobody writes there. Only S3 has such uploads.
    """
    if not _is_s3(uri):
        return 0
    with _naming("end the uploads below", uri):
        uploads = _s3().abandoned_uploads(uri)
        for key, upload in uploads:
            _s3().abort_upload(uri, key, upload)
        return len(uploads)


def _is_ours(uri: str, data: bytes, error: OSError) -> bool:
    # Refused, or no clear reply: the store may have executed a write of ours.
    try:
        return read_bytes(uri) == data
    except FileNotFoundError:
        raise error from None


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _s3() -> ModuleType:
    from headrace import s3

    return s3


def _s3_exists(uri: str) -> bool:
    try:
        _s3().head(uri)
    except FileNotFoundError:
        return bool(_s3().has_below(uri))
    return True


def _s3_file(uri: str) -> list[Found]:
    try:
        head = _s3().head(uri)
    except FileNotFoundError:
        return []
    return [Found(uri, head.bytes, head.stamp)]


def _found(path: Path) -> Found:
    stat = path.stat()
    return Found(str(path), stat.st_size, f"{stat.st_size} {stat.st_mtime_ns}")


def _found_elsewhere(uri: str, info: dict[str, Any]) -> Found:
    changes = ("ETag", "etag", "LastModified", "mtime", "md5Hash", "generation", "created")
    words = [str(info[name]) for name in ("size", *changes) if name in info]
    return Found(uri, info["size"], " ".join(words))


def _all_found(filesystem: Any, infos: dict[str, dict[str, Any]]) -> list[Found]:
    return sorted(
        _found_elsewhere(filesystem.unstrip_protocol(name), info)
        for name, info in infos.items()
        if info["type"] == "file"
    )


def _refused(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _glob_of(pattern: str) -> Callable[[str], Any]:
    import fsspec.utils

    return re.compile(fsspec.utils.glob_translate(pattern)).match


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
