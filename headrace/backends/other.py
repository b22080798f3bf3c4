"""Any fsspec URL but S3's, as fsspec does it: ``memory://``, ``gs://``, ``abfs://`` and so on.

Listings are asked for anew each time, because others write here too.
"""

from pathlib import Path
from typing import Any

from headrace.backends.found import Found

_CHANGES = ("ETag", "etag", "LastModified", "mtime", "md5Hash", "generation", "created")
"""What filesystems call that which changes with a file."""


def read(uri: str) -> bytes:
    """The whole file."""
    return bytes(_filesystem(uri).cat_file(uri))


def read_range(uri: str, start: int, stop: int, *, version: str | None) -> bytes:  # noqa: ARG001
    """The bytes from ``start`` until ``stop``; fewer, where the file ends before."""
    return bytes(_filesystem(uri).cat_file(uri, start=start, end=stop))


def find(uri: str) -> Found:
    """The file at ``uri``."""
    return _found(uri, _fresh(uri).info(uri))


def find_below(uri: str) -> list[Found]:
    """Every file below a folder, or the file itself."""
    filesystem = _fresh(uri)
    return _all_found(filesystem, filesystem.find(uri, detail=True))


def find_matching(pattern: str) -> list[Found]:
    """Every file that fits a glob."""
    filesystem = _fresh(pattern)
    return _all_found(filesystem, filesystem.glob(pattern, detail=True))


def exists(uri: str) -> bool:
    """True if a file or folder is there."""
    return bool(_filesystem(uri).exists(uri))


def names(uri: str) -> list[str]:
    """The names directly below a folder."""
    filesystem = _fresh(uri)
    if not filesystem.exists(uri):
        return []
    return [path.rstrip("/").rsplit("/", 1)[-1] for path in filesystem.ls(uri, detail=False)]


def write(uri: str, data: bytes, *, durable: bool) -> None:  # noqa: ARG001  (such places are)
    """Put ``data`` at ``uri``."""
    _filesystem(uri).pipe_file(uri, data)


def create(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri`` unless something is there: ``FileExistsError``."""
    _filesystem(uri).pipe_file(uri, data, mode="create")


def write_file(uri: str, path: Path) -> None:
    """Put a local file at ``uri``."""
    _filesystem(uri).put_file(str(path), uri)


def read_file(uri: str, path: Path) -> None:
    """Put the file at ``uri`` into a local one."""
    _filesystem(uri).get_file(uri, str(path))


def remove(uri: str) -> None:
    """Remove the file."""
    _filesystem(uri).rm_file(uri)


def _filesystem(uri: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(uri)[0]


def _fresh(uri: str) -> Any:
    filesystem = _filesystem(uri)
    filesystem.invalidate_cache()
    return filesystem


def _found(uri: str, info: dict[str, Any]) -> Found:
    words = [str(info[name]) for name in ("size", *_CHANGES) if name in info]
    return Found(uri, info["size"], " ".join(words))


def _all_found(filesystem: Any, infos: dict[str, dict[str, Any]]) -> list[Found]:
    return sorted(
        _found(filesystem.unstrip_protocol(name), info)
        for name, info in infos.items()
        if info["type"] == "file"
    )
