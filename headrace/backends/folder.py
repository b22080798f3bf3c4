"""A folder of this machine: a name appears by rename or link, when its bytes are complete."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headrace.backends.found import TEMPORARY, Found
from headrace.errors import StorageFailed


def read(uri: str) -> bytes:
    """The whole file."""
    return Path(uri).read_bytes()


def read_range(uri: str, start: int, stop: int, *, version: str | None) -> bytes:  # noqa: ARG001
    """The bytes from ``start`` until ``stop``; fewer, where the file ends before."""
    with Path(uri).open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def find(uri: str) -> Found:
    """The file at ``uri``."""
    stat = Path(uri).stat()
    return Found(uri, stat.st_size, f"{stat.st_size} {stat.st_mtime_ns}")


def find_below(uri: str) -> list[Found]:
    """Every file below a folder, or the file itself."""
    if Path(uri).is_file():
        return [find(uri)]
    folders = os.walk(uri, onerror=_unless_missing)
    paths = (Path(folder) / name for folder, _, names in folders for name in names)
    return sorted(find(str(path)) for path in paths if not path.name.startswith(TEMPORARY))


def find_matching(pattern: str) -> list[Found]:
    """Every file that fits a glob."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207  (pathlib's needs the fixed part)
    return sorted(find(name) for name in found if Path(name).is_file())


def exists(uri: str) -> bool:
    """True if a file or folder is there."""
    try:
        Path(uri).stat()  # Path.exists() would call a path below a file "not there"
    except FileNotFoundError:
        return False
    return True


def names(uri: str) -> list[str]:
    """The names directly below a folder."""
    try:
        return [path.name for path in Path(uri).iterdir()]
    except FileNotFoundError:  # a path below a file is a mistake, and is told as one
        return []


def write(uri: str, data: bytes, *, durable: bool) -> None:
    """Put ``data`` at ``uri``."""
    with temporary_beside(Path(uri), data, durable=durable) as temporary:
        temporary.replace(uri)
    if durable:
        sync_folder(Path(uri).parent)


def create(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri`` unless something is there: ``FileExistsError``."""
    with temporary_beside(Path(uri), data) as temporary:
        os.link(temporary, uri)  # fails where the name is taken, unlike rename
    sync_folder(Path(uri).parent)


def remove(uri: str) -> None:
    """Remove the file."""
    Path(uri).unlink()


def publish(path: Path, uri: str) -> None:
    """Make a filled file appear at ``uri``; its name is durable after ``sync_folder``."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(uri)


@contextlib.contextmanager
def temporary_beside(path: Path, data: bytes, *, durable: bool = True) -> Iterator[Path]:
    """A file with ``data`` in the folder of ``path``, gone at the end unless it was renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StorageFailed("make the folder", str(path.parent), "a file is in the way") from error
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is not durable before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
