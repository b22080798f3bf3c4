"""Bytes in and out of a folder or any fsspec URL: whole, or not at all.

A URI is a path of this machine (``/data/x``) or an fsspec URL (``s3://bucket/x``). Nothing here
opens a final name for writing: bytes are complete before they become visible, so a reader never
meets half a file and an exception publishes nothing. ``backends`` has what each kind of place
takes; S3's repeats what may heal and checks every byte.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.backends import folder
from headrace.backends.found import TEMPORARY, Found
from headrace.errors import DiskFull, StorageFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, a quota, a limit on file size


def is_local(uri: str) -> bool:
    """True for a path of this machine."""
    return "://" not in uri


def sha256(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(uri: str) -> str:
    """The SHA-256 of the file at ``uri`` in hexadecimal digits, read in bounded memory.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read.
    """
    with local_copy(uri) as path, _naming("read", uri), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(uri: str) -> bytes:
    """Return everything at ``uri``.

    Raises:
        FileNotFoundError: if nothing is there; "not there" and "could not ask" differ.
        StorageFailed: if it cannot be read.
    """
    with _naming("read", uri):
        return bytes(_backend(uri).read(uri))


def read_range(uri: str, start: int, stop: int, *, version: str | None = None) -> bytes:
    """Return the bytes from ``start`` until ``stop``, all of them.

    Args:
        uri: the file.
        start: the first byte, from 0.
        stop: the byte after the last; not beyond the end.
        version: the stamp that the file must have; only S3 looks at it.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read, ends before ``stop``, or has another version.
    """
    with _naming("read", uri):
        data = bytes(_backend(uri).read_range(uri, start, stop, version=version))
        if len(data) != stop - start:
            raise OSError(f"it ends before byte {stop}")
        return data


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
    with tempfile.TemporaryDirectory() as beside:
        path = Path(beside) / "data"
        with _naming("read", uri):
            _backend(uri).read_file(uri, path)
        yield path


def exists(uri: str) -> bool:
    """True if something is at ``uri``."""
    with _naming("look for", uri):
        return bool(_backend(uri).exists(uri))


def list_names(uri: str) -> list[str]:
    """The sorted names directly below ``uri``; empty if it is not there."""
    with _naming("list", uri):
        return sorted(n for n in _backend(uri).names(uri) if not n.startswith(TEMPORARY))


def stamp(uri: str) -> str:
    """What changes whenever the file at ``uri`` is written: its size and time, or its ETag.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be looked at.
    """
    return find(uri).stamp


def find(uri: str) -> Found:
    """The file at ``uri``: its size and its stamp.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be looked at.
    """
    with _naming("look at", uri):
        found: Found = _backend(uri).find(uri)
        return found


def find_below(uri: str) -> list[Found]:
    """Every file below the folder ``uri``, or the file itself, sorted; empty if nothing is there.

    What a writer has not finished is left out.
    """
    with _naming("list", uri):
        found: list[Found] = _backend(uri).find_below(uri)
        return found


def find_matching(pattern: str) -> list[Found]:
    """Every file that fits a glob (``*``, ``?``, ``[a-c]``, ``**`` for any folders), sorted."""
    with _naming("list", pattern):
        found: list[Found] = _backend(pattern).find_matching(pattern)
        return found


def write_atomic(uri: str, data: bytes, *, durable: bool = True) -> None:
    """Put ``data`` at ``uri``, replacing what was there: readers see the old or the new.

    Args:
        uri: where.
        data: what.
        durable: wait until a local disk has it. Without, a power cut may leave an empty or broken
            file: for what carries a checksum of its own and can be made again.
    """
    with _naming("write", uri):
        _backend(uri).write(uri, data, durable=durable)


def create_exclusive(uri: str, data: bytes) -> bool:
    """Put ``data`` at ``uri`` unless something is there; True if the bytes there are ours.

    A store may execute a write and lose the reply, so neither a refusal nor a broken connection is
    believed before what is there was read back and compared.
    """
    with _naming("write", uri):
        try:
            _backend(uri).create(uri, data)
        except (FileExistsError, ConnectionError, TimeoutError) as error:
            return _is_ours(uri, data, error)
        return True


@contextlib.contextmanager
def written_whole(uri: str) -> Iterator[Path]:
    """A file to fill, for data too large for ``write_atomic``: it appears at ``uri`` at the end.

    If the block fails, nothing is written.
    """
    with _naming("write", uri):
        if not is_local(uri):
            with tempfile.TemporaryDirectory() as beside:
                path = Path(beside) / "data"
                yield path
                _backend(uri).write_file(uri, path)
            return
        with folder.temporary_beside(Path(uri), b"") as temporary:
            yield temporary
            folder.publish(temporary, uri)
        folder.sync_folder(Path(uri).parent)


class Unnamed:
    """A file that is being filled, and that readers cannot see yet."""

    def __init__(self, folder_uri: str, path: Path) -> None:
        self._folder, self.path = folder_uri, path

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Around what writes to ``path``: its failures are told as those of storage."""
        with _naming("write", str(self.path.parent)):
            yield

    def publish(self, name: str) -> None:
        """Make the file appear as ``name``, whole. Its name is durable after ``sync_folder``."""
        uri = f"{self._folder}/{name}"
        with _naming("write", uri):
            if is_local(uri):
                folder.publish(self.path, uri)
            else:
                _backend(uri).write_file(uri, self.path)


@contextlib.contextmanager
def unnamed_file(folder_uri: str) -> Iterator[Unnamed]:
    """A file to fill whose name depends on what it will hold; unpublished, it vanishes.

    Args:
        folder_uri: where it will appear; on the same file system if that is local.
    """
    with contextlib.ExitStack() as opened:
        if is_local(folder_uri):
            beside = Path(folder_uri) / "unnamed"
            with _naming("write", folder_uri):
                path = opened.enter_context(folder.temporary_beside(beside, b"", durable=False))
        else:
            with _naming("write", tempfile.gettempdir()):
                path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "data"
        yield Unnamed(folder_uri, path)


def sync_folder(uri: str) -> None:
    """Make the names in a local folder durable; an object store's are already."""
    if is_local(uri):
        with _naming("write", uri):
            folder.sync_folder(Path(uri))


def remove(uri: str) -> None:
    """Remove what is at ``uri``; nothing there is fine."""
    with _naming("remove", uri), contextlib.suppress(FileNotFoundError):
        _backend(uri).remove(uri)


def remove_unfinished(uri: str) -> None:
    """Remove what killed writers left at ``uri``. Whoever writes there now fails.

    In a folder these are files that no reader looks at; in S3, uploads that were never completed:
    not visible, and paid for.
    """
    with _naming("remove unfinished files in", uri):
        if is_local(uri):
            for path in Path(uri).glob(f"{TEMPORARY}*"):
                path.unlink(missing_ok=True)
        elif _is_s3(uri):
            _backend(uri).abort_uploads(uri)


def object_store_options(uri: str) -> dict[str, str]:
    """What delta-rs is told of the store at ``uri``; it reads credentials from ``AWS_*`` itself."""
    endpoint = _endpoint() if _is_s3(uri) else ""
    if not endpoint:
        return {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:"))}


def iceberg_options(uri: str) -> dict[str, str]:
    """What pyiceberg is told of the store at ``uri``."""
    endpoint = _endpoint() if _is_s3(uri) else ""
    return {"s3.endpoint": endpoint} if endpoint else {}


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def _backend(uri: str) -> Any:
    if is_local(uri):
        return folder
    return _s3() if _is_s3(uri) else _other()


def _is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def _s3() -> ModuleType:
    from headrace.backends import s3

    return s3


def _other() -> ModuleType:
    from headrace.backends import other

    return other


def _is_ours(uri: str, data: bytes, error: OSError) -> bool:
    try:
        return read_bytes(uri) == data
    except FileNotFoundError:
        raise error from None


@contextlib.contextmanager
def _naming(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(action, uri, error.strerror) from error
        remedy = getattr(error, "remedy", "Check the path and its permissions.")
        raise StorageFailed(action, uri, error.strerror or error, remedy=remedy) from error
